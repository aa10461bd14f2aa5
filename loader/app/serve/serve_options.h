// The command line of `migrx serve`, checked for sense but not yet against this host.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/core_options.h"
#include "loader/app/host_options.h"
#include "loader/app/job_options.h"

namespace CLI {
class App;
}

namespace migrx {

// TLS of the QEMUs of --serve-ports and of their sources: libvirt sets it at both or at none.
struct FoundTlsOptions {
  std::optional<std::string> creds;
  std::vector<std::string> authz;
  std::optional<std::string> handoff_creds;
  std::optional<std::string> handoff_hostname;

  // The same as options of one migration into such a QEMU.
  [[nodiscard]] JobOptions job_options() const;
};

struct ServeOptions : HostOptions, CoreOptions {
  std::string control = "/run/migrx/control";
  std::string group;               // that may use the control socket; empty: the process's own
  std::vector<std::string> allow;  // CIDR, or "any"
  std::string listen_range = "49152-49215";
  std::string serve_ports;  // on which destination QEMUs of this host wait; empty: none is looked for
  FoundTlsOptions found_tls;
  std::vector<std::string> serve_users;  // whose QEMUs those may be; empty: kUsualUsers that this host has
  uint32_t sessions_max = 16;
  uint32_t connections_max = 0;    // of all sessions, on each poll core; 0: sessions_max with 8 channels each
  uint64_t private_ram_total = 0;  // bytes of blocks without a file, of all sessions; 0: 1 GiB for each
  std::vector<std::string> client_folders;  // below which other clients than root may name files
  double drain_timeout_s = 0;               // 0: for ever
  std::string runtime_dir;
  std::optional<std::string> metrics;  // address at which they are served
  bool quiet = false;
  bool supervise = true;
};

void add_serve_options(CLI::App& command, ServeOptions& options);

// Options that contradict each other. Empty: none. The text says what to change.
[[nodiscard]] std::string check_serve_options(const ServeOptions& options);

// --serve-users as numbers. Empty: `out` is filled; otherwise who is not known here.
[[nodiscard]] std::string user_ids(const std::vector<std::string>& names, std::vector<uid_t>& out);

// --connections-max and --private-ram-total, or what their defaults mean.
[[nodiscard]] uint32_t connections_of(const ServeOptions& options);
[[nodiscard]] uint64_t private_ram_of(const ServeOptions& options);

// --allow as networks: "any" is all of each family that an --address has.
[[nodiscard]] std::vector<std::string> allowed_networks(const ServeOptions& options);

}  // namespace migrx

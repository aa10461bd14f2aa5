// What `migrx receive` and `migrx load` have in common: guest memory, the destination, and the reporting.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loader/destination/socket_address.h"
#include "numa/guest_memory.h"

namespace CLI {
class App;
}

namespace migrx {

class GuestBlocks;
struct MemorySettings;
class Terminal;
struct Report;

struct JobOptions {
  // Memory.
  std::vector<std::string> ram;  // as RamSpec says it
  bool unlink = false;
  uint64_t private_ram_max = 1ULL << 30;  // bytes of blocks without a file
  bool no_memory_check = false;
  std::string memory_group;  // folder of the control group that pays for the files
  std::string runtime_dir;   // empty: default_runtime_folder()

  // The destination.
  std::optional<std::string> handoff;  // "unix:/run/vm0.sock"
  bool no_handoff = false;
  std::string handoff_form = "plain";      // or "x-ignore-shared"
  std::optional<int32_t> destination_pid;  // the QEMU that listens at `handoff`
  std::optional<std::string> qmp;          // "unix:/run/vm0.qmp"
  // Encryption towards it (handoff_tls.h).
  std::string handoff_tls = "auto";  // or "on", "off"
  std::optional<std::string> handoff_tls_creds;
  std::optional<std::string> handoff_tls_hostname;
  // Not options: how those sockets of a client of `migrx serve` are reached that is not root
  // (serve/client_sockets.h).
  std::optional<SocketAccess> handoff_access;
  std::optional<SocketAccess> qmp_access;
  std::optional<std::string> dump_blocks;

  // Reporting.
  std::optional<std::string> report;
  std::optional<std::string> metrics;  // "127.0.0.1:9464": where Prometheus may ask
  bool quiet = false;
};

// Adds the options to a subcommand; values appear in `options` when the command line has been parsed.
void add_job_options(CLI::App& command, JobOptions& options);

// Makes a repeatable option take one word each time, so that the next word is left to
// the positional argument.
void one_word_each(CLI::App& command);

// --metrics, of all commands that have it.
void add_metrics_option(CLI::App& command, std::optional<std::string>& address, const char* group);

// Looks at --metrics, --report and --ram, and then makes the directory of --dump-blocks. Throws SetupError.
[[nodiscard]] std::vector<RamSpec> prepare_job(const JobOptions& options);

// For GuestBlocks::prefault(). Throws SetupError.
[[nodiscard]] MemorySettings memory_settings(const JobOptions& options);

// Success: settles what becomes of the files, and writes --dump-blocks; what that cannot write is a warning.
void keep_blocks(const JobOptions& options, GuestBlocks& guest, Report& report);

// The last words, on the terminal and in --report; a report that cannot be written goes to stderr. Returns
// `exit_status`: nothing that happens here changes where the guest is.
[[nodiscard]] int tell_outcome(const JobOptions& options, const Report& report, Terminal& terminal,
                               int exit_status);

}  // namespace migrx

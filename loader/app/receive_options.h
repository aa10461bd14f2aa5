// `migrx receive`: what the command line says, checked for sense but not yet against this host.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/core_options.h"
#include "loader/app/job_options.h"

namespace migrx {

// Names are QEMU's where QEMU has one: capabilities and parameters as in `migrate_set_capability`.
struct ReceiveOptions : JobOptions, CoreOptions {
  // Ports: DPDK devargs, each with the address it answers to.
  std::vector<std::string> ports;
  std::vector<std::string> addresses;  // "10.77.0.2/24", one per port
  uint16_t listen = 4444;
  uint32_t mtu = 1500;
  std::optional<std::string> gateway;
  std::optional<uint16_t> vlan;
  bool probe = true;                     // ask whether somebody has the addresses already
  std::optional<double> link_timeout_s;  // AddressClaimOptions
  std::vector<std::string> allow;  // CIDR; empty: the port's own subnet, or anyone when a gateway is given
  std::vector<std::string> source_nat;  // CIDR; addresses that may be one source's
  uint32_t pool_mbufs = 0;              // per poll core; 0: chosen
  uint64_t window_bytes = 0;            // per connection; 0: chosen
  std::string eal;                      // extra EAL arguments

  // The stream.
  uint32_t multifd_channels = 0;  // 0: multifd off
  std::string multifd_compression = "none";
  std::vector<std::string> capabilities;
  std::optional<bool> multifd_flush_after_each_section;
  std::optional<bool> switchover_ack_legacy;
  std::optional<std::string> uuid;

  // Encryption: "x509:dir=…" or "psk:dir=…" (loader/tls/credentials.h), and who of those may connect.
  std::optional<std::string> tls_creds;
  std::vector<std::string> tls_authz;

  // Limits in seconds; 0: none.
  double identify_timeout_s = 30;
  double channels_timeout_s = 75;
  double stall_timeout_s = 60;
  double destination_timeout_s = 300;
  double peer_timeout_s = 960;  // TcpConfig::give_up_ns says why
  double linger_s = 1200;       // 0: nobody stays behind

  // Reporting.
  int ready_fd = -1;
  bool supervise = true;
};

// Adds the options to a subcommand; values appear in `options` when the command line has been parsed.
void add_receive_options(CLI::App& command, ReceiveOptions& options);

// Options that contradict each other. Empty: none. The text says what to change.
[[nodiscard]] std::string check_receive_options(const ReceiveOptions& options);

}  // namespace migrx

// What a host is to a receiver: its ports and their addresses.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace migrx {

struct HostOptions {
  std::vector<std::string> ports;      // DPDK devargs, each with the addresses it answers to
  std::vector<std::string> addresses;  // "10.77.0.2/24" or "10.77.0.2/24,fd00::2/64", one entry per port
  uint32_t mtu = 1500;
  std::optional<std::string> gateway;
  std::optional<uint16_t> vlan;
  bool probe = true;                     // ask whether another host has the addresses already
  std::optional<double> link_timeout_s;  // AddressClaimOptions
  uint32_t pool_mbufs = 0;               // per poll core; 0: chosen
  uint64_t window_bytes = 0;             // per connection; 0: chosen
  std::string eal;                       // extra EAL arguments
  bool telemetry = false;

  // Limits in seconds; 0: none.
  double peer_timeout_s = 960;  // TcpConfig::give_up_ns says why
  double linger_s = 1200;       // 0: no process stays
};

// Adds the options to a subcommand; values appear in `options` when the command line has been parsed.
void add_host_options(CLI::App& command, HostOptions& options);

struct TenantOptions;

// What contradicts itself, or what no host can do. Empty: nothing. The text says what to change.
[[nodiscard]] std::string check_host_options(const HostOptions& options, const TenantOptions& tenant);

}  // namespace migrx

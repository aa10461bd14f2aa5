// What a host is to a receiver: its ports, their addresses, and who may connect.
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
  uint16_t listen = 4444;
  uint32_t mtu = 1500;
  std::optional<std::string> gateway;
  std::optional<uint16_t> vlan;
  bool probe = true;                     // ask whether another host has the addresses already
  std::optional<double> link_timeout_s;  // AddressClaimOptions
  std::vector<std::string> allow;  // CIDR; empty: the port's own subnets, or anyone when a gateway is given
  std::vector<std::string> source_nat;  // CIDR; addresses that may be one source's
  uint32_t pool_mbufs = 0;              // per poll core; 0: chosen
  uint64_t window_bytes = 0;            // per connection; 0: chosen
  std::string eal;                      // extra EAL arguments
};

// Adds the options to a subcommand; values appear in `options` when the command line has been parsed.
void add_host_options(CLI::App& command, HostOptions& options);

// What contradicts itself, or what no host can do. Empty: nothing. The text says what to change.
[[nodiscard]] std::string check_host_options(const HostOptions& options);

}  // namespace migrx

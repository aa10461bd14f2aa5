// The options that say which cores poll and load, shared by `receive` and `plan`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "numa/host_files.h"
#include "numa/placement.h"
#include "numa/ram_spec.h"
#include "numa/topology.h"

namespace CLI {
class App;
}

namespace migrx {

struct CoreOptions {
  std::string poll_cores;  // "2,3" or "count=2"; empty: chosen
  std::string loader_cores;
  std::string link;  // "100G"; empty: see port_link()
  std::string idle;  // "spin", "yield", "sleep"; empty: chosen
};

void add_core_options(CLI::App& command, CoreOptions& options, const std::string& group);

// Adds to `wish` what the options ask for; its ports are there already. Empty, or what is wrong.
[[nodiscard]] std::string ask_for_cores(const CoreOptions& options, PlacementWish& wish);

// Bits per second of the link at a port, before the port is opened: as the kernel says of its own interface
// (net_af_packet, net_af_xdp: "iface=eth0"; a PCI card whose driver keeps one, as mlx5 does), else what the
// card's slot carries where that is less than kLinkAssumed. 0: not known.
[[nodiscard]] uint64_t port_link(const std::string& devargs, const HostFiles& files);

// Where this host would run a receiver. Throws SetupError.
[[nodiscard]] Placement place_here(const CoreOptions& options, const std::vector<std::string>& ports,
                                   const std::vector<RamSpec>& ram, uint32_t mtu);

}  // namespace migrx

// The options that say which cores poll and load, shared by `receive` and `plan`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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
  std::string link;  // "100G"; empty: asked of the kernel, where the port is an interface of its
  std::string idle;  // "spin", "yield", "sleep"; empty: chosen
};

void add_core_options(CLI::App& command, CoreOptions& options, const std::string& group);

// Adds to `wish` what the options ask for; its ports are there already. Empty, or what is wrong.
[[nodiscard]] std::string ask_for_cores(const CoreOptions& options, PlacementWish& wish);

// Bits per second of the kernel's interface that the devargs name (net_af_packet, net_af_xdp: "iface=eth0");
// 0: not known.
[[nodiscard]] uint64_t interface_link(const std::string& devargs);

// Where this host would run a receiver. Throws SetupError.
[[nodiscard]] Placement place_here(const CoreOptions& options, const std::vector<std::string>& ports,
                                   const std::vector<RamSpec>& ram, uint32_t mtu);

}  // namespace migrx

#include "loader/app/core_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "loader/app/setup_error.h"
#include "numa/host_files.h"

namespace migrx {
namespace {

// Millions of bits per second; -1 where the link is down, and nothing where the driver does not say.
uint64_t speed_of(const HostFiles& files, const std::string& interface) {
  return files.number(interface + "/speed").value_or(0) * 1'000'000;
}

// Of a PCI function: "8.0 GT/s PCIe" and "8". A virtual function says neither.
uint64_t slot_bits_per_s(const HostFiles& files, const std::string& device) {
  const std::string speed = files.line(device + "/current_link_speed").value_or("");
  const uint64_t width = files.number(device + "/current_link_width").value_or(0);
  double transfers = 0;
  if (std::sscanf(speed.c_str(), "%lf GT/s", &transfers) != 1 || transfers <= 0 || transfers > 1000 ||
      width == 0 || width > 32)
    return 0;
  // 8b/10b up to the second generation, 128b/130b from the third on.
  const double bits = transfers * (transfers > 5 ? 128.0 / 130 : 0.8) * static_cast<double>(width);
  return static_cast<uint64_t>(bits * 1e9);
}

uint64_t pci_link(const HostFiles& files, std::string address) {
  if (address.size() == 7) address = "0000:" + address;
  const std::string device = "/sys/bus/pci/devices/" + address;
  if (address.find('/') != std::string::npos || !files.exists(device + "/vendor")) return 0;
  uint64_t fastest = 0;
  for (const std::string& name : files.list(device + "/net"))
    fastest = std::max(fastest, speed_of(files, device + "/net/" + name));
  if (fastest > 0) return fastest;
  const uint64_t slot = slot_bits_per_s(files, device);
  return slot < kLinkAssumed ? slot : 0;
}

}  // namespace

void add_core_options(CLI::App& command, CoreOptions& o, const std::string& group) {
  command.add_option("--poll-cores", o.poll_cores, "CPUs that poll ports, e.g. 2,3, or how many: count=2")
      ->group(group);
  command
      .add_option("--loader-cores", o.loader_cores,
                  "CPUs that write guest RAM, e.g. 4-7, or how many: count=4")
      ->group(group);
  command
      .add_option("--link", o.link,
                  "speed of each port's link, e.g. 100G, which decides how many cores are taken (default: "
                  "what the kernel says of its own interface, else 100G, or what the card's slot carries)")
      ->group(group);
  command
      .add_option("--idle", o.idle, "what an idle core does: spin, yield or sleep (default: by placement)")
      ->check(CLI::IsMember({"spin", "yield", "sleep"}))
      ->group(group);
}

std::string ask_for_cores(const CoreOptions& options, PlacementWish& wish) {
  std::string problem;
  if (!options.poll_cores.empty())
    if (problem = parse_cores(options.poll_cores, wish.poll_cpus, wish.poll_count); !problem.empty())
      return "--poll-cores: " + problem;
  if (!options.loader_cores.empty())
    if (problem = parse_cores(options.loader_cores, wish.loader_cpus, wish.loader_count); !problem.empty())
      return "--loader-cores: " + problem;
  wish.idle = options.idle;
  uint64_t bits = 0;
  if (!options.link.empty())
    if (problem = parse_link(options.link, bits); !problem.empty()) return "--link " + problem;
  const HostFiles files;
  for (PortWish& port : wish.ports) port.link_bits_per_s = bits > 0 ? bits : port_link(port.name, files);
  if (wish.ports.empty() && bits > 0) wish.ports.push_back({"(any)", kAnyNode, bits});
  return {};
}

uint64_t port_link(const std::string& devargs, const HostFiles& files) {
  if (!devargs.starts_with("net_")) return pci_link(files, devargs.substr(0, devargs.find(',')));
  if (!devargs.starts_with("net_af_")) return 0;
  const std::size_t at = devargs.find("iface=");
  if (at == std::string::npos) return 0;
  const std::string name = devargs.substr(at + 6, devargs.find(',', at) - at - 6);
  if (name.empty() || name.find('/') != std::string::npos || name.front() == '.') return 0;
  return speed_of(files, "/sys/class/net/" + name);
}

Placement place_here(const CoreOptions& options, const std::vector<std::string>& ports,
                     const std::vector<RamSpec>& ram, uint32_t mtu) {
  std::string problem;
  const std::optional<Topology> topology = load_topology("this", problem);
  if (!topology) throw SetupError(problem);
  PlacementWish wish;
  wish.mtu = mtu;
  for (const std::string& devargs : ports) {
    const auto known = topology->pci.find(devargs.substr(0, devargs.find(',')));
    wish.ports.push_back({devargs, known == topology->pci.end() ? kAnyNode : known->second});
  }
  for (const RamSpec& spec : ram) wish.ram.push_back({spec.id, spec.node});
  if (problem = ask_for_cores(options, wish); !problem.empty()) throw SetupError(problem);
  std::optional<Placement> placement = plan_placement(*topology, wish, problem);
  if (!placement) throw SetupError(problem);
  return std::move(*placement);
}

}  // namespace migrx

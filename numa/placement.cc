#include "numa/placement.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <string_view>

#include "numa/cpu_list.h"

namespace migrx {
namespace {

// Ethernet and IP around a segment: preamble and gap, header and FCS; IP and TCP headers with timestamps.
constexpr double kLinkOverhead = 20 + 18;
constexpr double kSegmentHeaders = 52;
// Cycles of a poll core per segment, those of a port's driver included, and the clock they were measured at.
constexpr double kPollCycles = 330;
constexpr double kPollCyclesJumbo = 560;  // assumed, not measured: more cache lines, mbufs in a chain
constexpr uint32_t kJumboMtu = 4000;
constexpr double kHertz = 2.445e9;
constexpr double kLoaderBytes = 9.5e9;
constexpr double kLoaderBytesJumbo = 12.0e9;
constexpr double kMargin = 0.8;
constexpr uint32_t kCoresMax = 64;  // of a role; also of a count that somebody asks for

std::string text_of(NodeId node) {
  return node == kAnyNode ? "no particular node" : "node " + std::to_string(node.value());
}

std::string gbit_text(uint64_t bits) {
  const uint64_t tenths = bits / 100'000'000;
  return std::to_string(tenths / 10) + (tenths % 10 == 0 ? "" : "." + std::to_string(tenths % 10)) +
         " Gbit/s";
}
std::string gbyte_text(double bytes) {
  const auto tenths = static_cast<uint64_t>(bytes / 1e8 + 0.5);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " GB/s";
}

uint32_t cores_for(double bytes, double bytes_per_core) {
  return std::clamp(static_cast<uint32_t>(std::ceil(bytes / bytes_per_core)), 1U, kCoresMax);
}

class Planner {
 public:
  Planner(const Topology& topology, const PlacementWish& wish) : topology_(topology), wish_(wish) {}

  std::optional<Placement> run(std::string& problem) {
    problem = check_wish();
    if (!problem.empty()) return std::nullopt;
    if (wish_.poll_cpus.empty() || wish_.loader_cpus.empty())
      choose();
    else
      follow();
    choose_idle();
    warn();
    std::set<CpuId> used;
    for (const ThreadPlan& thread : out_.threads) used.insert(thread.cpu);
    for (const CpuInfo& cpu : topology_.cpus)
      if (!used.contains(cpu.cpu)) out_.left_alone.push_back(cpu.cpu);
    if (!out_.left_alone.empty())
      reason("CPUs " + format_cpu_list(out_.left_alone) +
             (out_.control_cpu ? " are left to QEMU and everything else"
                               : " are left to the control thread, QEMU and everything else"));
    return std::move(out_);
  }

 private:
  void reason(std::string text) { out_.reasons.push_back(std::move(text)); }

  std::string check_wish() const {
    for (const auto* const list : {&wish_.poll_cpus, &wish_.loader_cpus})
      for (const CpuId cpu : *list)
        if (topology_.find(cpu) == nullptr)
          return "CPU " + std::to_string(cpu.value()) + " is not there or not allowed for this process (" +
                 topology_.source + " has " + format_cpu_list(all_cpus()) +
                 "): change --poll-cores or --loader-cores, or the cpuset (taskset, systemd AllowedCPUs)";
    for (const uint32_t count : {wish_.poll_count, wish_.loader_count})
      if (count > kCoresMax || (count > 0 && count >= std::max<std::size_t>(2, free_cores().size())))
        return std::to_string(count) + " cores are too many: " + topology_.source + " has " +
               std::to_string(free_cores().size()) +
               ", and one stays for everything else: ask for less in --poll-cores or --loader-cores";
    for (const RamWish& ram : wish_.ram)
      if (ram.node != kAnyNode && !topology_.has_node(ram.node))
        return "block " + ram.id + " wants " + text_of(ram.node) + ", which " + topology_.source +
               " does not have (nodes: " + nodes_text() + "): change node= of --ram";
    return {};
  }

  std::vector<CpuId> all_cpus() const {
    std::vector<CpuId> cpus;
    for (const CpuInfo& cpu : topology_.cpus) cpus.push_back(cpu.cpu);
    return cpus;
  }
  std::string nodes_text() const {
    std::string text;
    for (const NodeInfo& node : topology_.nodes)
      text += (text.empty() ? "" : ", ") + std::to_string(node.node.value());
    return text;
  }

  // One CPU per core, isolated ones first: SMT siblings share the core's execution units and caches, and a
  // poller beside a loader slows both. Of a core's siblings the isolated one, whichever that is.
  std::vector<CpuInfo> free_cores() const {
    std::vector<CpuInfo> cores;
    for (const CpuInfo& cpu : topology_.cpus) {
      const auto known = std::find_if(cores.begin(), cores.end(),
                                      [&](const CpuInfo& core) { return core.core == cpu.core; });
      if (known == cores.end())
        cores.push_back(cpu);
      else if (cpu.isolated && !known->isolated)
        *known = cpu;
    }
    std::stable_sort(cores.begin(), cores.end(),
                     [](const CpuInfo& a, const CpuInfo& b) { return a.isolated > b.isolated; });
    return cores;
  }

  // Where ports hang or RAM lies.
  [[nodiscard]] bool near(NodeId node) const {
    return std::any_of(wish_.ram.begin(), wish_.ram.end(),
                       [&](const RamWish& ram) { return ram.node == node; }) ||
           std::any_of(wish_.ports.begin(), wish_.ports.end(),
                       [&](const PortWish& port) { return port.node == node; });
  }

  // Takes the first core of `pool` on `node`. When it does not matter, or when `node` has none: of a node
  // where ports or RAM are, else of the node with most cores left.
  CpuInfo take(std::vector<CpuInfo>& pool, NodeId node) const {
    const auto on = [&](NodeId wanted) {
      return std::find_if(pool.begin(), pool.end(), [&](const CpuInfo& cpu) { return cpu.node == wanted; });
    };
    auto at = on(node);
    if (at == pool.end())
      at = std::find_if(pool.begin(), pool.end(), [&](const CpuInfo& cpu) { return near(cpu.node); });
    if (at == pool.end()) {
      const auto left = [&](NodeId wanted) {
        return std::count_if(pool.begin(), pool.end(),
                             [&](const CpuInfo& cpu) { return cpu.node == wanted; });
      };
      at = on(std::max_element(pool.begin(), pool.end(), [&](const CpuInfo& a, const CpuInfo& b) {
                return left(a.node) < left(b.node);
              })->node);
    }
    const CpuInfo chosen = *at;
    pool.erase(at);
    return chosen;
  }

  void add(AgentRole role, const CpuInfo& cpu) {
    uint32_t& count = role == AgentRole::poll ? out_.poll_agents : out_.loader_agents;
    auto thread = std::find_if(out_.threads.begin(), out_.threads.end(),
                               [&](const ThreadPlan& known) { return known.cpu == cpu.cpu; });
    if (thread == out_.threads.end()) {
      out_.threads.push_back({cpu.cpu, cpu.node, {}});
      thread = out_.threads.end() - 1;
    }
    thread->agents.push_back({role, count++, cpu.node});
  }

  std::vector<NodeId> port_nodes() const {
    std::vector<NodeId> nodes;
    for (const PortWish& port : wish_.ports) nodes.push_back(port.node);
    if (nodes.empty()) nodes.push_back(kAnyNode);
    return nodes;
  }
  std::vector<NodeId> ram_nodes() const {
    std::set<NodeId> nodes;
    for (const RamWish& ram : wish_.ram) nodes.insert(ram.node);
    if (nodes.size() > 1) nodes.erase(kAnyNode);
    if (nodes.empty()) nodes.insert(kAnyNode);
    return {nodes.begin(), nodes.end()};
  }

  // How many of each the links need.
  void count_cores(uint32_t& polls, uint32_t& loaders) {
    const double segment = std::max(1.0, static_cast<double>(wish_.mtu) - kSegmentHeaders);
    const double share = segment / (static_cast<double>(wish_.mtu) + kLinkOverhead);
    std::vector<PortWish> ports = wish_.ports;
    if (ports.empty()) ports.emplace_back();
    uint32_t per_port = 1;
    double all = 0;
    for (const PortWish& port : ports) {
      const uint64_t link = port.link_bits_per_s > 0 ? port.link_bits_per_s : kLinkAssumed;
      const double bytes = static_cast<double>(link) / 8 * share;
      per_port = std::max(per_port, cores_for(bytes, poll_core_bytes_per_s(wish_.mtu)));
      all += bytes;
      if (port.link_bits_per_s > 0)
        reason("port " + port.name + " has a link of " + gbit_text(link));
      else if (!port.name.empty())
        reason("the speed of port " + port.name + " is not known: " + gbit_text(link) +
               " are assumed (--link)");
    }
    polls = wish_.poll_count > 0 ? wish_.poll_count : per_port * static_cast<uint32_t>(ports.size());
    loaders =
        wish_.loader_count > 0 ? wish_.loader_count : cores_for(all, loader_core_bytes_per_s(wish_.mtu));
    reason("at MTU " + std::to_string(wish_.mtu) + " the links bring at most " + gbyte_text(all) +
           "; a poll core takes " + gbyte_text(poll_core_bytes_per_s(wish_.mtu)) +
           " and a loader core writes " + gbyte_text(loader_core_bytes_per_s(wish_.mtu)) +
           " (docs/performance.md, a fifth kept back): " + std::to_string(polls) + " poll and " +
           std::to_string(loaders) + " loader cores" +
           (wish_.poll_count + wish_.loader_count > 0 ? ", as asked for" : ""));
  }

  // One core stays for the control thread and the kernel: the first that is not isolated, but no near one
  // that is needed while far ones are free.
  void spare_one(std::vector<CpuInfo>& pool, std::size_t wanted) const {
    const auto spare =
        std::find_if(pool.begin(), pool.end(), [](const CpuInfo& cpu) { return !cpu.isolated; });
    if (spare == pool.end()) return;
    const auto near_cores = static_cast<std::size_t>(
        std::count_if(pool.begin(), pool.end(), [&](const CpuInfo& cpu) { return near(cpu.node); }));
    const auto far = std::find_if(pool.begin(), pool.end(),
                                  [&](const CpuInfo& cpu) { return !cpu.isolated && !near(cpu.node); });
    pool.erase(near(spare->node) && near_cores <= wanted && far != pool.end() ? far : spare);
  }

  void share_one_core(std::vector<CpuInfo> pool) {
    few_cores_ = true;
    const auto worth = [&](const CpuInfo& cpu) {
      const auto ram = ram_nodes();
      const auto ports = port_nodes();
      return (cpu.isolated ? 4 : 0) + (std::find(ram.begin(), ram.end(), cpu.node) != ram.end() ? 2 : 0) +
             (std::find(ports.begin(), ports.end(), cpu.node) != ports.end() ? 1 : 0);
    };
    // The last of equals: the kernel's own work is on the first.
    CpuInfo cpu = pool.front();
    for (const CpuInfo& other : pool)
      if (worth(other) >= worth(cpu)) cpu = other;
    add(AgentRole::poll, cpu);
    add(AgentRole::loader, cpu);
    reason("with so few cores the poll core and the loader worker take turns on CPU " +
           std::to_string(cpu.cpu.value()) + (pool.size() == 2 ? ", and QEMU has the other" : ""));
    if (near(cpu.node))
      reason("CPU " + std::to_string(cpu.cpu.value()) + " is on " + text_of(cpu.node) +
             ", where the port or RAM is");
  }

  void choose() {
    std::vector<CpuInfo> pool = free_cores();
    reason(topology_.source + " offers " + std::to_string(topology_.cpus.size()) + " CPUs on " +
           std::to_string(pool.size()) + " cores and " + std::to_string(topology_.nodes.size()) + " nodes");
    const bool all_chosen = wish_.poll_cpus.empty() && wish_.loader_cpus.empty();
    if (all_chosen && pool.size() <= 2) return share_one_core(std::move(pool));
    uint32_t polls = 0;
    uint32_t loaders = 0;
    count_cores(polls, loaders);
    for (const auto* const list : {&wish_.poll_cpus, &wish_.loader_cpus})
      for (const CpuId cpu : *list)
        std::erase_if(pool, [&](const CpuInfo& core) { return core.core == topology_.find(cpu)->core; });
    if (pool.size() > 1) spare_one(pool, polls + loaders);
    const std::size_t isolated = static_cast<std::size_t>(
        std::count_if(pool.begin(), pool.end(), [](const CpuInfo& cpu) { return cpu.isolated; }));
    if (isolated >= (all_chosen ? 2U : 1U)) {
      std::erase_if(pool, [](const CpuInfo& cpu) { return !cpu.isolated; });
      reason("only the " + std::to_string(isolated) +
             " isolated cores are used: the scheduler keeps others away there");
    }
    const std::vector<NodeId> from = port_nodes();
    const std::vector<NodeId> to = ram_nodes();
    for (const CpuId cpu : wish_.poll_cpus) add(AgentRole::poll, *topology_.find(cpu));
    // A loader has nothing to do without a poll core, and the other way round: where cores are few
    // each gets half.
    const std::size_t room =
        wish_.loader_cpus.empty() ? std::max<std::size_t>(1, pool.size() / 2) : pool.size();
    for (std::size_t i = 0;
         i < std::min<std::size_t>(polls, room) && wish_.poll_cpus.empty() && !pool.empty(); ++i) {
      const NodeId node = from[i % from.size()];
      const CpuInfo cpu = take(pool, node);
      add(AgentRole::poll, cpu);
      reason("poll core " + std::to_string(i) + " on CPU " + std::to_string(cpu.cpu.value()) + ", " +
             text_of(cpu.node) +
             (node == kAnyNode   ? ": the port belongs to no node"
              : node == cpu.node ? ": the port's node"
                                 : ": no core was left on the port's " + text_of(node)));
    }
    for (const CpuId cpu : wish_.loader_cpus) add(AgentRole::loader, *topology_.find(cpu));
    const std::size_t wanted = wish_.loader_count > 0 ? loaders : std::max<std::size_t>(to.size(), loaders);
    for (std::size_t i = 0; i < wanted && wish_.loader_cpus.empty() && !pool.empty(); ++i) {
      const NodeId node = to[i % to.size()];
      const bool first_there = i < to.size();
      const bool room_there =
          node == kAnyNode ||
          std::any_of(pool.begin(), pool.end(), [&](const CpuInfo& cpu) { return cpu.node == node; });
      // A loader far from its memory is better than none, but no better than one more beside it.
      if (!room_there && !first_there) continue;
      const CpuInfo cpu = take(pool, node);
      reason("loader " + std::to_string(out_.loader_agents) + " on CPU " + std::to_string(cpu.cpu.value()) +
             ", " + text_of(cpu.node) +
             (node == kAnyNode   ? ": no block asks for a node"
              : node == cpu.node ? ": where RAM lies"
                                 : ": no core was left on the RAM's " + text_of(node)));
      add(AgentRole::loader, cpu);
    }
    // No core was left beside those that were asked for.
    if (out_.poll_agents == 0) add(AgentRole::poll, *topology_.find(wish_.loader_cpus.front()));
    if (out_.loader_agents == 0) {
      const ThreadPlan& first = out_.threads.front();
      add(AgentRole::loader, *topology_.find(first.cpu));
    }
    if (out_.poll_agents < polls || out_.loader_agents < wanted)
      out_.warnings.push_back("fewer cores than the links need: " + std::to_string(out_.poll_agents) +
                              " poll and " + std::to_string(out_.loader_agents) +
                              " loader cores; the migration may be slower than "
                              "the link");
  }

  void follow() {
    for (const CpuId cpu : wish_.poll_cpus) add(AgentRole::poll, *topology_.find(cpu));
    for (const CpuId cpu : wish_.loader_cpus) add(AgentRole::loader, *topology_.find(cpu));
    reason("poll cores " + format_cpu_list(wish_.poll_cpus) + " and loader cores " +
           format_cpu_list(wish_.loader_cpus) + " as asked for");
    for (const ThreadPlan& thread : out_.threads)
      if (thread.agents.size() > 1)
        reason("CPU " + std::to_string(thread.cpu.value()) + " runs its poll core and its loader in turn");
  }

  void choose_idle() {
    const bool all_isolated =
        std::all_of(out_.threads.begin(), out_.threads.end(),
                    [&](const ThreadPlan& thread) { return topology_.find(thread.cpu)->isolated; });
    out_.idle = wish_.idle.empty() ? (all_isolated ? "spin" : "yield") : wish_.idle;
    if (wish_.idle.empty())
      reason(all_isolated ? "idle threads spin: all their CPUs are isolated"
                          : "idle threads yield: their CPUs are not isolated");
    if (out_.idle == "spin" && !all_isolated)
      out_.warnings.emplace_back(
          "spinning on CPUs that are not isolated makes everything else there late: isolate them "
          "(isolcpus=), or use --idle yield");
    // While the guest stands still, source and destination work on the other CPU and would be interrupted by
    // every look of the control thread, or let it wait; beside a thread that gives way it waits for nobody.
    if (few_cores_ && out_.idle != "spin") {
      out_.control_cpu = out_.threads.front().cpu;
      reason("the control thread shares CPU " + std::to_string(out_.control_cpu->value()) +
             ": QEMU's work at the switchover is not interrupted");
    }
  }

  void warn() {
    for (std::size_t i = 0; i < out_.threads.size(); ++i) {
      const CpuInfo& a = *topology_.find(out_.threads[i].cpu);
      for (std::size_t k = i + 1; k < out_.threads.size(); ++k) {
        const CpuInfo& b = *topology_.find(out_.threads[k].cpu);
        if (a.core == b.core)
          out_.warnings.push_back("CPUs " + std::to_string(a.cpu.value()) + " and " +
                                  std::to_string(b.cpu.value()) +
                                  " are siblings on one core: they slow each other");
      }
    }
    for (const ThreadPlan& thread : out_.threads) {
      const CpuInfo& cpu = *topology_.find(thread.cpu);
      if (!cpu.isolated) continue;
      for (const CpuInfo& other : topology_.cpus)
        if (other.core == cpu.core && !other.isolated)
          out_.warnings.push_back("CPU " + std::to_string(other.cpu.value()) +
                                  " is the sibling of isolated CPU " + std::to_string(cpu.cpu.value()) +
                                  " and is not isolated: what the scheduler puts there slows it");
    }
    for (const PortWish& port : wish_.ports) {
      if (port.node == kAnyNode) continue;
      for (const ThreadPlan& thread : out_.threads)
        for (const AgentPlan& agent : thread.agents)
          if (agent.role == AgentRole::poll && thread.node != port.node && wish_.ports.size() == 1)
            out_.warnings.push_back("poll core on CPU " + std::to_string(thread.cpu.value()) + " is on " +
                                    text_of(thread.node) + ", port " + port.name + " on " +
                                    text_of(port.node) + ": every packet crosses");
    }
    for (const RamWish& ram : wish_.ram) {
      if (ram.node == kAnyNode) continue;
      const bool served =
          std::any_of(out_.threads.begin(), out_.threads.end(), [&](const ThreadPlan& thread) {
            return thread.node == ram.node &&
                   std::any_of(thread.agents.begin(), thread.agents.end(),
                               [](const AgentPlan& a) { return a.role == AgentRole::loader; });
          });
      if (!served)
        out_.warnings.push_back("no loader core on " + text_of(ram.node) + ", where block " + ram.id +
                                " lies: its pages are written from another node");
    }
  }

  const Topology& topology_;
  const PlacementWish& wish_;
  Placement out_;
  bool few_cores_ = false;  // poll core and loader share one of two, or the only one
};

}  // namespace

double poll_core_bytes_per_s(uint32_t mtu) noexcept {
  const double segment = std::max(1.0, static_cast<double>(mtu) - kSegmentHeaders);
  return kMargin * segment * kHertz / (mtu < kJumboMtu ? kPollCycles : kPollCyclesJumbo);
}

double loader_core_bytes_per_s(uint32_t mtu) noexcept {
  return kMargin * (mtu < kJumboMtu ? kLoaderBytes : kLoaderBytesJumbo);
}

std::string parse_cores(const std::string& text, std::vector<CpuId>& cpus, uint32_t& count) {
  constexpr std::string_view kCount = "count=";
  cpus.clear();
  count = 0;
  if (!text.starts_with(kCount)) return parse_cpu_list(text, cpus);
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data() + kCount.size(), last, count);
  if (error == std::errc{} && end == last && count > 0 && count <= kCoresMax) return {};
  count = 0;
  return text + ": expected count=N, with N from 1 to " + std::to_string(kCoresMax);
}

std::string parse_link(const std::string& text, uint64_t& bits) {
  const char* const last = text.data() + text.size();
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), last, number);
  const std::string_view unit(end, static_cast<std::size_t>(last - end));
  const uint64_t factor = unit == "G" ? 1'000'000'000 : unit == "M" ? 1'000'000 : 0;
  if (error != std::errc{} || factor == 0 || number == 0 || number > 10'000'000)
    return text + ": expected a link speed in bits per second such as 100G, 25G or 100M";
  bits = number * factor;
  return {};
}

std::optional<Placement> plan_placement(const Topology& topology, const PlacementWish& wish,
                                        std::string& problem) {
  return Planner(topology, wish).run(problem);
}

std::vector<CpuId> cpus_of(const Placement& placement) {
  std::vector<CpuId> cpus;
  for (const ThreadPlan& thread : placement.threads) cpus.push_back(thread.cpu);
  return cpus;
}

std::string describe(const Topology& topology, const Placement& placement) {
  std::string text;
  for (const ThreadPlan& thread : placement.threads) {
    text += "CPU " + std::to_string(thread.cpu.value()) + " (" + text_of(thread.node);
    if (const CpuInfo* const cpu = topology.find(thread.cpu); cpu != nullptr && cpu->isolated)
      text += ", isolated";
    text += "):";
    for (const AgentPlan& agent : thread.agents)
      text +=
          std::string(agent.role == AgentRole::poll ? " poll " : " loader ") + std::to_string(agent.index);
    text += "\n";
  }
  text += "idle: " + placement.idle + "\n";
  for (const std::string& reason : placement.reasons) text += "- " + reason + "\n";
  for (const std::string& warning : placement.warnings) text += "warning: " + warning + "\n";
  return text;
}

}  // namespace migrx

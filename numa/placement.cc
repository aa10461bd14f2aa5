#include "numa/placement.h"

#include <algorithm>
#include <set>

#include "numa/cpu_list.h"

namespace migrx {
namespace {

// Poll cores that a port can feed: one takes 100 Gbit/s at MTU 9000, so more than this needs several ports.
constexpr std::size_t kPollCoresMax = 4;
// Loader cores per poll core: one copies faster than one poll core delivers; the second is for decompression.
constexpr std::size_t kLoadersPerPoll = 2;

std::string text_of(NodeId node) {
  return node == kAnyNode ? "no particular node" : "node " + std::to_string(node.value());
}

class Planner {
 public:
  Planner(const Topology& topology, const PlacementWish& wish) : topology_(topology), wish_(wish) {}

  std::optional<Placement> run(std::string& problem) {
    problem = check_wish();
    if (!problem.empty()) return std::nullopt;
    if (wish_.poll_cpus.empty())
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
    if (wish_.poll_cpus.empty() != wish_.loader_cpus.empty())
      return "--poll-cores and --loader-cores go together: give both or neither";
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
  // poller beside a loader slows both.
  std::vector<CpuInfo> free_cores() const {
    std::vector<CpuInfo> cores;
    std::set<int32_t> seen;
    for (const CpuInfo& cpu : topology_.cpus)
      if (seen.insert(cpu.core).second) cores.push_back(cpu);
    std::stable_sort(cores.begin(), cores.end(),
                     [](const CpuInfo& a, const CpuInfo& b) { return a.isolated > b.isolated; });
    return cores;
  }

  // Takes the first core of `pool` on `node`; of the node with most cores left when it does not matter, or
  // when `node` has none.
  static CpuInfo take(std::vector<CpuInfo>& pool, NodeId node) {
    const auto on = [&](NodeId wanted) {
      return std::find_if(pool.begin(), pool.end(), [&](const CpuInfo& cpu) { return cpu.node == wanted; });
    };
    auto at = on(node);
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

  void choose() {
    std::vector<CpuInfo> pool = free_cores();
    reason(topology_.source + " offers " + std::to_string(topology_.cpus.size()) + " CPUs on " +
           std::to_string(pool.size()) + " cores and " + std::to_string(topology_.nodes.size()) + " nodes");
    if (pool.size() <= 2) {
      few_cores_ = true;
      const CpuInfo cpu = pool.back();
      add(AgentRole::poll, cpu);
      add(AgentRole::loader, cpu);
      reason("with so few cores the poll core and the loader worker take turns on CPU " +
             std::to_string(cpu.cpu.value()) + (pool.size() == 2 ? ", and QEMU has the other" : ""));
      return;
    }
    // One core stays for the control thread and the kernel: the first that is not isolated.
    const auto spare =
        std::find_if(pool.begin(), pool.end(), [](const CpuInfo& cpu) { return !cpu.isolated; });
    if (spare != pool.end()) pool.erase(spare);
    const std::size_t isolated = static_cast<std::size_t>(
        std::count_if(pool.begin(), pool.end(), [](const CpuInfo& cpu) { return cpu.isolated; }));
    if (isolated >= 2) {
      std::erase_if(pool, [](const CpuInfo& cpu) { return !cpu.isolated; });
      reason("only the " + std::to_string(isolated) +
             " isolated cores are used: the scheduler keeps others away there");
    }
    const std::vector<NodeId> from = port_nodes();
    const std::vector<NodeId> to = ram_nodes();
    const std::size_t polls =
        std::clamp<std::size_t>(pool.size() / (1 + kLoadersPerPoll), 1, kPollCoresMax * from.size());
    for (std::size_t i = 0; i < polls; ++i) {
      const NodeId node = from[i % from.size()];
      const CpuInfo cpu = take(pool, node);
      add(AgentRole::poll, cpu);
      reason("poll core " + std::to_string(i) + " on CPU " + std::to_string(cpu.cpu.value()) + ", " +
             text_of(cpu.node) +
             (node == kAnyNode   ? ": the port hangs on no node"
              : node == cpu.node ? ": the port's node"
                                 : ": no core was left on the port's " + text_of(node)));
    }
    const std::size_t loaders = std::max<std::size_t>(to.size(), polls * kLoadersPerPoll);
    for (std::size_t i = 0; i < loaders && !pool.empty(); ++i) {
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
          "spinning on CPUs that are not isolated makes everything else there late: isolcpus=, or --idle "
          "yield");
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

std::optional<Placement> plan_placement(const Topology& topology, const PlacementWish& wish,
                                        std::string& problem) {
  return Planner(topology, wish).run(problem);
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

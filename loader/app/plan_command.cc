#include "loader/app/plan_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "loader/app/core_options.h"
#include "loader/app/job_options.h"
#include "numa/cpu_list.h"
#include "numa/guest_memory.h"
#include "numa/memory_budget.h"
#include "numa/placement.h"

namespace migrx {
namespace {

struct PlanOptions : CoreOptions {
  std::string topology = "this";
  std::vector<std::string> ports;
  std::vector<std::string> ram;
  std::string isolated;
  uint32_t mtu = 1500;
  bool json = false;
};

nlohmann::ordered_json to_json(const Placement& placement) {
  nlohmann::ordered_json out;
  out["threads"] = nlohmann::json::array();
  for (const ThreadPlan& thread : placement.threads) {
    nlohmann::ordered_json agents = nlohmann::json::array();
    for (const AgentPlan& agent : thread.agents)
      agents.push_back({{"role", agent.role == AgentRole::poll ? "poll" : "loader"},
                        {"index", agent.index},
                        {"node", agent.node.value()}});
    out["threads"].push_back(
        {{"cpu", thread.cpu.value()}, {"node", thread.node.value()}, {"agents", agents}});
  }
  out["idle"] = placement.idle;
  out["left_alone"] = format_cpu_list(placement.left_alone);
  out["reasons"] = placement.reasons;
  out["warnings"] = placement.warnings;
  return out;
}

struct MemoryPlan {
  std::vector<std::string> lines;  // what each file would take
  std::string problem;             // what this host lacks; empty: nothing
};

MemoryPlan plan_memory(const std::vector<std::string>& ram) {
  MemoryPlan plan;
  std::vector<MemoryNeed> needs;
  for (const std::string& text : ram) {
    RamSpec spec;
    if (plan.problem = parse_ram_spec(text, spec); !plan.problem.empty()) return plan;
    const std::optional<MemoryNeed> need = memory_need_of(spec, plan.problem);
    if (!need) return plan;
    plan.lines.push_back(
        fmt::format("{}: {} in pages of {} KiB{}", need->path, size_text(need->bytes), need->page_bytes >> 10,
                    need->node == kAnyNode ? "" : fmt::format(" on node {}", need->node.value())));
    needs.push_back(*need);
  }
  const HostFiles files;
  plan.problem = memory_problem(needs, 0, memory_facts(files, "self"));
  return plan;
}

// Empty: the plan was printed.
std::string plan(const PlanOptions& options) {
  std::string problem;
  std::optional<Topology> topology = load_topology(options.topology, problem);
  if (!topology) return problem;
  if (!options.isolated.empty()) {
    std::vector<CpuId> isolated;
    if (problem = parse_cpu_list(options.isolated, isolated); !problem.empty())
      return "--isolated: " + problem;
    for (CpuInfo& cpu : topology->cpus)
      cpu.isolated = std::find(isolated.begin(), isolated.end(), cpu.cpu) != isolated.end();
  }
  PlacementWish wish;
  for (const std::string& text : options.ports) {
    // DEVARGS[@NODE]: a topology from a file may not say where a device hangs.
    const std::size_t at = text.rfind('@');
    PortWish port{text.substr(0, at), kAnyNode};
    if (at != std::string::npos) {
      std::vector<CpuId> number;
      if (!parse_cpu_list(text.substr(at + 1), number).empty() || number.size() != 1)
        return "--port " + text + ": after @ comes the number of a node";
      port.node = NodeId{number[0].value()};
      if (!topology->has_node(port.node))
        return "--port " + text + ": " + topology->source + " has no such node";
    } else if (const auto known = topology->pci.find(port.name.substr(0, port.name.find(',')));
               known != topology->pci.end()) {
      port.node = known->second;
    }
    wish.ports.push_back(std::move(port));
  }
  for (const std::string& text : options.ram) {
    RamSpec spec;
    if (problem = parse_ram_spec(text, spec); !problem.empty()) return problem;
    wish.ram.push_back({spec.id, spec.node});
  }
  if (problem = ask_for_cores(options, wish); !problem.empty()) return problem;
  wish.mtu = options.mtu;
  const std::optional<Placement> placement = plan_placement(*topology, wish, problem);
  if (!placement) return problem;
  nlohmann::ordered_json out = to_json(*placement);
  // What another host has of memory, a topology does not tell.
  const bool here = options.topology == "this" && !options.ram.empty();
  const MemoryPlan memory = here ? plan_memory(options.ram) : MemoryPlan{};
  if (here) {
    out["memory"] = {
        {"needed", memory.lines}, {"there", memory.problem.empty()}, {"problem", memory.problem}};
  }
  if (options.json) {
    std::printf("%s\n", out.dump(2).c_str());
  } else {
    std::printf("%s", describe(*topology, *placement).c_str());
    for (const std::string& line : memory.lines) std::printf("memory: %s\n", line.c_str());
    if (here && memory.problem.empty()) std::printf("memory: it is there\n");
  }
  return memory.problem;
}

}  // namespace

void add_plan_command(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* const command = app.add_subcommand("plan", "show which core would do what, and why");
  command->add_option(
      "--topology", options->topology,
      "another host: an hwloc XML file, or synthetic:\"pack:2 numa:1 core:16 pu:2\" (default: this host)");
  command->add_option("--port", options->ports, "DEVARGS[@NODE] of a port; may repeat");
  command->add_option("--ram", options->ram, "ID=PATH[,size=4G][,node=0]; may repeat");
  command->add_option("--mtu", options->mtu, "MTU of the link")
      ->check(CLI::Range(576, 65535))
      ->capture_default_str();
  command->add_option("--isolated", options->isolated,
                      "CPUs to be taken as isolated, for topologies from files");
  add_core_options(*command, *options, "Options");
  command->add_flag("--json", options->json, "for machines");
  one_word_each(*command);
  command->callback([options, &exit_status] {
    const std::string problem = plan(*options);
    if (problem.empty()) return;
    std::fprintf(stderr, "migrx: %s\n", problem.c_str());
    exit_status = 2;
  });
}

}  // namespace migrx

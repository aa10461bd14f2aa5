#include "loader/doctor/doctor.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace migrx {
namespace {

constexpr uint32_t kFormat = 1;

std::size_t count(const std::vector<Finding>& findings, CheckState state) {
  return static_cast<std::size_t>(
      std::count_if(findings.begin(), findings.end(),
                    [&](const Finding& finding) { return finding.verdict.state == state; }));
}

}  // namespace

std::vector<const Check*> all_checks() {
  std::vector<const Check*> checks;
  for (const auto group : {cpu_checks(), memory_checks(), port_checks(), software_checks()})
    for (const Check& check : group) checks.push_back(&check);
  return checks;
}

std::vector<Finding> examine(const HostFacts& host, const DoctorWish& wish, int64_t now_unix_s) {
  PlacementWish placement;
  for (const std::string& devargs : wish.ports) {
    std::string name = devargs.substr(0, devargs.find(','));
    if (name.starts_with("pci:")) name.erase(0, 4);
    const PciFacts* const pci = host.find_pci(name);
    placement.ports.push_back({devargs, pci == nullptr ? kAnyNode : pci->node});
  }
  if (placement.ports.empty()) placement.ports.push_back({"a virtual port", kAnyNode});
  for (const RamSpec& spec : wish.ram) {
    RamWish ram;
    ram.id = spec.id;
    ram.node = spec.node;
    placement.ram.push_back(ram);
  }
  placement.poll_cpus = wish.poll_cpus;
  placement.loader_cpus = wish.loader_cpus;
  placement.poll_count = wish.poll_count;
  placement.loader_count = wish.loader_count;
  placement.mtu = static_cast<uint32_t>(wish.mtu);
  std::string problem;
  std::optional<Placement> plan;
  if (host.topology.cpus.empty())
    problem = "no CPU is left for this process";
  else
    plan = plan_placement(host.topology, placement, problem);
  const CheckInput input{host, wish, plan, problem, now_unix_s};
  std::vector<Finding> findings;
  for (const Check* const check : all_checks()) findings.push_back({check, check->look(input)});
  return findings;
}

std::string findings_text(const std::vector<Finding>& findings, bool all) {
  std::string out;
  for (const Finding& finding : findings) {
    const CheckVerdict& verdict = finding.verdict;
    const bool bad = verdict.state == CheckState::warn || verdict.state == CheckState::fail;
    if (!bad && !all) continue;
    std::string label = to_string(verdict.state);
    std::transform(label.begin(), label.end(), label.begin(),
                   [](char c) { return static_cast<char>(std::toupper(c)); });
    label.resize(8, ' ');
    std::string id = finding.check->id;
    id.resize(std::max<std::size_t>(id.size(), 18), ' ');
    out += label + id + " " + verdict.text + "\n";
    if (!bad) continue;
    out += "        " + std::string(finding.check->why) + "\n";
    if (!verdict.command.empty()) out += "        # " + verdict.command + "\n";
  }
  const std::size_t failed = count(findings, CheckState::fail);
  const std::size_t warned = count(findings, CheckState::warn);
  if (!out.empty()) out += "\n";
  out += std::to_string(findings.size()) + " checks: " + std::to_string(count(findings, CheckState::ok)) +
         " ok, " + std::to_string(warned) + " warnings, " + std::to_string(failed) + " failed, " +
         std::to_string(count(findings, CheckState::skipped)) +
         " skipped (not asked for, or not of this host)\n";
  out += failed > 0   ? "not ready: mend what failed first\n"
         : warned > 0 ? "ready, with warnings\n"
                      : "ready\n";
  return out;
}

std::string findings_json(const std::vector<Finding>& findings, const std::string& program_version) {
  nlohmann::ordered_json out;
  out["program"] = "migrx";
  out["version"] = program_version;
  out["format"] = kFormat;
  out["ready"] = doctor_status(findings, false) == 0;
  out["checks"] = nlohmann::json::array();
  for (const Finding& finding : findings)
    out["checks"].push_back({{"id", finding.check->id},
                             {"state", to_string(finding.verdict.state)},
                             {"text", finding.verdict.text},
                             {"why", finding.check->why},
                             {"command", finding.verdict.command}});
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

int doctor_status(const std::vector<Finding>& findings, bool strict) {
  return count(findings, CheckState::fail) > 0 || (strict && count(findings, CheckState::warn) > 0) ? 1 : 0;
}

}  // namespace migrx

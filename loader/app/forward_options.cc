#include "loader/app/forward_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <set>

#include "loader/destination/port_range.h"

namespace migrx {

void add_forward_options(CLI::App& command, ForwardOptions& o) {
  const char* const forwarding = "Forwarding";
  command
      .add_option("--forward", o.forward,
                  "PORT=ADDRESS:PORT: a source's connections to that port of migrx go to that server of the "
                  "destination's network namespace, e.g. an NBD server for disks; may repeat")
      ->type_name("PORT=ADDRESS:PORT")
      ->group(forwarding);
  command
      .add_option("--forward-range", o.forward_range,
                  "ports on which the destination QEMU's NBD server is looked for; connections to the same "
                  "port of migrx go there. FIRST-LAST or off (default: 49152-49215 when --handoff has one "
                  "of these ports, as with libvirt, else off)")
      ->type_name("FIRST-LAST")
      ->group(forwarding);
}

std::string plan_forwards(const ForwardOptions& o, const TenantOptions& tenant, const JobOptions& job,
                          ForwardPlan& out) {
  out = {};
  std::set<uint16_t> taken{tenant.listen};
  if (o.forward.size() > ForwardPlan::kRulesMax)
    return fmt::format("--forward: {} at most, since each has packet buffers of its own",
                       ForwardPlan::kRulesMax);
  for (const std::string& text : o.forward) {
    ForwardRule rule;
    if (std::string problem = parse_forward_rule(text, rule); !problem.empty()) return "--forward " + problem;
    if (!taken.insert(rule.port).second)
      return fmt::format("--forward {}: port {} is {}: choose another one", text, rule.port,
                         rule.port == tenant.listen ? "that of --listen" : "forwarded already");
    out.rules.push_back(rule);
  }
  if (o.forward_range == "off") return {};
  SocketAddress handoff;
  const bool is_known = job.handoff && parse_socket_address(*job.handoff, handoff).empty();
  PortRange range;
  if (!o.forward_range.empty()) {
    if (!parse_port_range(o.forward_range, range))
      return fmt::format("--forward-range {}: expected two ports such as 49152-49215, or off",
                         o.forward_range);
    if (!is_known)
      return "--forward-range: the destination QEMU has to be known: give --handoff, or leave it out";
    out.range = range;
  } else if (is_known && handoff.port >= range.first && handoff.port <= range.last) {
    out.range = range;
  }
  return {};
}

}  // namespace migrx

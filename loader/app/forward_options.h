// Which connections are forwarded to servers of this host, beside the migration.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/job_options.h"
#include "loader/app/tenant_options.h"
#include "loader/destination/port_range.h"
#include "loader/forward/forward_rule.h"

namespace migrx {

struct ForwardOptions {
  std::vector<std::string> forward;  // as ForwardRule says it
  std::string forward_range;         // ports of the destination's other listeners; "off"; empty: chosen
};

// Adds the options to a subcommand; values appear in `options` when the command line has been parsed.
void add_forward_options(CLI::App& command, ForwardOptions& options);

struct ForwardPlan {
  std::vector<ForwardRule> rules;
  // The destination QEMU's other listeners on these ports are found and forwarded, one at a time.
  std::optional<PortRange> range;

  // Connections that a port may have on each poll core: libvirt makes one for each disk.
  static constexpr uint32_t kPlaces = 8;
  static constexpr std::size_t kRulesMax = 8;
  [[nodiscard]] uint32_t ports() const noexcept {
    return static_cast<uint32_t>(rules.size()) + (range ? 1U : 0U);
  }
  [[nodiscard]] uint32_t places() const noexcept { return ports() * kPlaces; }
};
// Empty: `out` is filled. Otherwise what is wrong, with the option's name, and what to change. Pure.
[[nodiscard]] std::string plan_forwards(const ForwardOptions& options, const TenantOptions& tenant,
                                        const JobOptions& job, ForwardPlan& out);

}  // namespace migrx

// What a migration is to the host that receives it: a TCP port, who may connect to it, and how long somebody
// may keep it waiting.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loader/session/session_limits.h"

namespace CLI {
class App;
}

namespace migrx {

struct TenantOptions {
  uint16_t listen = 4444;
  std::vector<std::string> allow;  // CIDR; empty: the port's own subnets, or anyone when a gateway is given
  std::vector<std::string> source_nat;  // CIDR; addresses that may be one source's

  // Limits in seconds; 0: none.
  double identify_timeout_s = 30;
  double channels_timeout_s = 75;
  double stall_timeout_s = 60;
  double destination_timeout_s = 300;
};

// Adds the options to a subcommand; values appear in `options` when the command line has been parsed.
void add_tenant_options(CLI::App& command, TenantOptions& options);

[[nodiscard]] SessionLimits limits_of(const TenantOptions& options);

}  // namespace migrx

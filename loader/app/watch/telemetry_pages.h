// A report as the answers of DPDK's telemetry commands below /migrx/. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "dataplane/dpdk/telemetry.h"
#include "loader/app/progress.h"
#include "loader/app/report.h"

namespace migrx {

// The commands, with a sentence on each.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> telemetry_commands();
// `report` as it stands now, `progress` of the same moment.
[[nodiscard]] std::vector<TelemetryPage> telemetry_pages(const Report& report,
                                                         const ProgressSample& progress);

}  // namespace migrx

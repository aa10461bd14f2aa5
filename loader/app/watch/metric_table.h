// Every counter that is told outside: its name in the report, its name for Prometheus, and what it counts.
// Report, metrics and telemetry read the same lists; a test compares the sets.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace migrx {

enum class MetricScope : uint8_t { main_channel, channel, multifd_channel, core, dataplane, memory };
enum class MetricKind : uint8_t { counter, gauge };

struct MetricInfo {
  MetricScope scope = MetricScope::channel;
  std::string report_name;  // in the report's list of that scope
  std::string metric;       // "migrx_channel_segments_total"
  MetricKind kind = MetricKind::counter;
  std::string help;
};

// Made once; any thread.
[[nodiscard]] const std::vector<MetricInfo>& metric_table();
// nullptr: not in the table, which a test would have found.
[[nodiscard]] const MetricInfo* find_metric(MetricScope scope, std::string_view report_name);

}  // namespace migrx

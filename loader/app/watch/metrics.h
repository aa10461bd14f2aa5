// A report as metrics: families of samples, named after Prometheus' rules. Pure, so that tests look at it
// without a server.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "loader/app/progress.h"
#include "loader/app/report.h"
#include "loader/app/watch/metric_table.h"

namespace migrx {

struct MetricSample {
  std::vector<std::pair<std::string, std::string>> labels;
  double value = 0;
};

struct MetricFamily {
  std::string name;
  std::string help;
  MetricKind kind = MetricKind::counter;
  std::vector<MetricSample> samples;
};

// The metrics of one moment, as text.
using Metrics = std::vector<MetricFamily>;

// `report` as it stands now, `progress` of the same moment. `last`: busy and idle seconds by CPU at the look
// before, for the share of the last interval; updated.
using CoreTimes = std::vector<std::pair<int, std::pair<double, double>>>;
[[nodiscard]] Metrics metrics_of(const Report& report, const ProgressSample& progress, CoreTimes& last);

// One migration of `migrx serve`, small enough to be kept after the migration's end: of its channels there
// are "main" and "multifd", which is all of these together.
struct SessionLook {
  std::string id;     // "s12"
  std::string state;  // as migrx_session_state has it, and "queued" and "preparing" before
  Report report;
  ProgressSample progress;
};
// The sums over channels of a kind; of gauges the largest. Blocks, ports and words are left out.
[[nodiscard]] Report condensed(const Report& report);

// A daemon at one moment. host: threads, ports and buffers.
struct DaemonLook {
  Report host;
  DaemonNumbers numbers;
  std::vector<SessionLook> sessions;
};
// Like metrics_of() a report; what is a session's own bears its id as the label "session".
[[nodiscard]] Metrics metrics_of(const DaemonLook& look, CoreTimes& last);

}  // namespace migrx

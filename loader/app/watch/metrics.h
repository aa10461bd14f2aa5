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

}  // namespace migrx

// The counter table: every number that migrx publishes has one row: its name in the report, its metric, its
// unit, whether it only grows, what it means, and how it is read. Report and metrics are filled from these
// rows alone, so that neither can have a counter that the other lacks.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/agent_thread.h"
#include "dataplane/dpdk/dpdk_port.h"
#include "dataplane/handoff/handoff.h"
#include "dataplane/poll_core.h"
#include "loader/app/progress.h"
#include "loader/app/report.h"
#include "loader/app/serve/budget.h"
#include "loader/colo/secondary.h"
#include "loader/main/main_channel.h"
#include "loader/multifd/multifd_channel.h"
#include "loader/session/channel.h"
#include "loader/session/destination.h"
#include "loader/snapshot/page_reader.h"

namespace migrx {

// Where in the report the counter stands.
enum class MetricScope : uint8_t {
  process,          // its head: "cpu_s"
  session,          // its head, too: "wire_bytes", "timeline.ready_s"
  main_channel,     // of channels, the one called "main"
  channel,          // of channels, each
  multifd_channel,  // of channels, the others
  snapshot,         // of the main channel of `migrx load`
  core,
  dataplane,  // "tcp.in_order"
  postcopy,
  colo,
  memory,
  daemon  // of `migrx serve`, in query-host
};
enum class MetricKind : uint8_t { counter, gauge };
// Prometheus' base units. `one`: things, named by the metric; `flag`: 0 or 1.
enum class MetricUnit : uint8_t { one, bytes, seconds, ratio, flag };
[[nodiscard]] const char* to_string(MetricScope scope) noexcept;
[[nodiscard]] const char* to_string(MetricUnit unit) noexcept;

struct MetricInfo {
  MetricScope scope = MetricScope::channel;
  std::string report_name;  // in the report, below its scope; "": the report has it in another form
  std::string metric;       // "migrx_channel_segments_total"
  MetricUnit unit = MetricUnit::one;
  MetricKind kind = MetricKind::counter;
  std::string help;
  std::string moment;  // of the label of that name; "": it has the labels of its scope
};

// Made once; any thread.
[[nodiscard]] const std::vector<MetricInfo>& metric_table();
// nullptr: not in the table, which a test would have found. Any thread.
[[nodiscard]] const MetricInfo* find_metric(MetricScope scope, std::string_view report_name);

// ---- How they are read: counters with one writer each, read relaxed; any thread, at any time. ----
[[nodiscard]] CounterList counters_of(const MainCounters& counters);
[[nodiscard]] CounterList counters_of(const Channel& channel);
[[nodiscard]] CounterList counters_of(const Handoff& connection);
[[nodiscard]] CounterList counters_of(const MultifdCounters& counters);
[[nodiscard]] CounterList counters_of(const PageReader& reader);
[[nodiscard]] CounterList counters_of(const AgentThreadCounters& counters);
[[nodiscard]] CounterList counters_of(const ColoSecondary& colo);
[[nodiscard]] CounterList counters_of(const PostcopyNumbers& postcopy);

// Of all ports together.
struct PortTotals {
  DpdkPort::Stats stats;
  uint64_t link_changes = 0;
};
struct BufferTotals {
  uint64_t buffers = 0;
  uint64_t available = 0;
  bool hugepages = false;
};
// Sums over the poll cores, and the ports' own; in the table's order, zeros included.
[[nodiscard]] CounterList counters_of(const std::vector<const PollCore*>& cores, const PortTotals& ports);
[[nodiscard]] CounterList counters_of(const BufferTotals& buffers);

// What `migrx serve` has promised, and what became of those that asked.
struct DaemonNumbers {
  Budget promised;
  Budget whole;
  uint32_t waiting = 0;  // for room or a port
  uint64_t completed = 0;
  uint64_t unsure = 0;
  uint64_t failed = 0;  // cancelled ones among them
  uint64_t refused = 0;
  uint64_t peers_to_be_told = 0;
  bool draining = false;
};
[[nodiscard]] CounterList counters_of(const DaemonNumbers& numbers);

// What the head of a report and the progress line tell of a session, in the base unit of its row.
struct SessionNumbers {
  const Report& report;
  const ProgressSample& progress;
};
struct SessionValue {
  const MetricInfo* info;
  double value;
};
// Moments that did not come are left out.
[[nodiscard]] std::vector<SessionValue> values_of(const SessionNumbers& numbers);
// Of the process that the report is of.
[[nodiscard]] std::vector<SessionValue> values_of(const Report& report);
// Of one core, in the same way.
[[nodiscard]] std::vector<SessionValue> values_of(const CoreReport& core);

}  // namespace migrx

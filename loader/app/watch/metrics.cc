#include "loader/app/watch/metrics.h"

#include <algorithm>

#include "loader/session/session.h"

namespace migrx {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

class Collector {
 public:
  void add(const std::string& name, const std::string& help, MetricKind kind, Labels labels, double value) {
    auto at = std::find_if(all_.begin(), all_.end(),
                           [&](const MetricFamily& family) { return family.name == name; });
    if (at == all_.end()) at = all_.insert(all_.end(), {name, help, kind, {}});
    at->samples.push_back({std::move(labels), value});
  }
  void add(MetricScope scope, const CounterList& counters, const Labels& labels) {
    for (const auto& [name, value] : counters)
      if (const MetricInfo* const info = find_metric(scope, name); info != nullptr)
        add(info->metric, info->help, info->kind, labels, static_cast<double>(value));
  }
  [[nodiscard]] Metrics take() { return std::move(all_); }

 private:
  Metrics all_;
};

// Without zeros in the report, but never without them here: a counter that appears late loses its first
// steps.
CounterList complete(MetricScope scope, const CounterList& counters) {
  CounterList out;
  for (const MetricInfo& info : metric_table()) {
    if (info.scope != scope) continue;
    const auto at = std::find_if(counters.begin(), counters.end(),
                                 [&](const auto& counter) { return counter.first == info.report_name; });
    out.emplace_back(info.report_name, at == counters.end() ? 0 : at->second);
  }
  return out;
}

void add_session(Collector& out, const Report& r, const ProgressSample& progress) {
  constexpr auto kCounter = MetricKind::counter;
  constexpr auto kGauge = MetricKind::gauge;
  out.add("migrx_build_info", "The program, as labels; always 1.", kGauge, {{"version", r.version}}, 1);
  out.add("migrx_start_time_seconds", "When the command started, in seconds since 1970.", kGauge, {},
          r.started_unix_s);
  out.add("migrx_process_cpu_seconds_total", "CPU time of the process, polling included.", kCounter, {},
          r.cpu_s);
  for (const SessionState state :
       {SessionState::listening, SessionState::setup, SessionState::precopy, SessionState::switchover,
        SessionState::device_state, SessionState::colo, SessionState::done, SessionState::failed})
    out.add("migrx_session_state", "1 for the state that the session is in.", kGauge,
            {{"state", to_string(state)}}, progress.phase == std::string(to_string(state)) ? 1 : 0);
  out.add("migrx_session_channels", "Channels that have said what they are.", kGauge, {}, progress.channels);
  out.add("migrx_session_channels_expected", "Channels that the session waits for.", kGauge, {},
          progress.channels_expected);
  out.add("migrx_session_wire_bytes_total", "Stream bytes received on all channels.", kCounter, {},
          static_cast<double>(progress.wire_bytes));
  out.add("migrx_session_pages_total", "Guest pages applied in all rounds, zero pages included.", kCounter,
          {}, static_cast<double>(progress.pages));
  out.add("migrx_session_zero_pages_total", "Of those, pages that came as zero.", kCounter, {},
          static_cast<double>(progress.zero_pages));
  out.add("migrx_session_epochs_total",
          "Epochs closed: rounds, or sections with sources that synchronise at each.", kCounter, {},
          static_cast<double>(progress.rounds));
  out.add("migrx_session_ram_bytes", "RAM of the guest; 0 until the source has told.", kGauge, {},
          static_cast<double>(progress.ram_pages) * 4096);
  out.add("migrx_session_first_pass_ratio", "How much of the guest's RAM has come at least once, 0 to 1.",
          kGauge, {},
          progress.ram_pages == 0 ? 0
                                  : std::min(1.0, static_cast<double>(progress.first_pass_pages) /
                                                      static_cast<double>(progress.ram_pages)));
  const std::pair<const char*, double> moments[] = {{"ready", r.timeline.ready_s},
                                                    {"setup", r.timeline.setup_s},
                                                    {"precopy", r.timeline.precopy_s},
                                                    {"switchover", r.timeline.switchover_s},
                                                    {"ram_complete", r.timeline.ram_complete_s},
                                                    {"device_state", r.timeline.device_state_s}};
  for (const auto& [name, seconds] : moments)
    if (seconds >= 0)
      out.add("migrx_session_moment_seconds", "When a phase began, in seconds after the command's start.",
              kGauge, {{"moment", name}}, seconds);
}

void add_cores(Collector& out, const Report& r, CoreTimes& last) {
  constexpr auto kCounter = MetricKind::counter;
  constexpr auto kGauge = MetricKind::gauge;
  CoreTimes now;
  for (const CoreReport& core : r.cores) {
    const Labels labels{{"cpu", std::to_string(core.cpu)}, {"role", core.role}};
    out.add("migrx_core_busy_seconds_total", "Time in turns that found something to do.", kCounter, labels,
            core.busy_s);
    out.add("migrx_core_idle_seconds_total", "Time in turns that found nothing, pauses included.", kCounter,
            labels, core.idle_s);
    out.add("migrx_core_longest_turn_seconds", "Longest turn with work since the start.", kGauge, labels,
            core.longest_turn_us * 1e-6);
    const auto before =
        std::find_if(last.begin(), last.end(), [&](const auto& entry) { return entry.first == core.cpu; });
    const double busy = core.busy_s - (before == last.end() ? 0 : before->second.first);
    const double idle = core.idle_s - (before == last.end() ? 0 : before->second.second);
    out.add("migrx_core_useful_ratio",
            "Share of the last interval in turns that found something to do; the rest is polling or sleep.",
            kGauge, labels, busy + idle > 0 ? std::clamp(busy / (busy + idle), 0.0, 1.0) : 0);
    out.add(MetricScope::core, core.counters, labels);
    now.push_back({core.cpu, {core.busy_s, core.idle_s}});
  }
  last = std::move(now);
}

}  // namespace

Metrics metrics_of(const Report& r, const ProgressSample& progress, CoreTimes& last) {
  Collector out;
  add_session(out, r, progress);
  for (const ChannelReport& channel : r.channels) {
    const Labels labels{{"channel", channel.name}};
    out.add(MetricScope::channel, channel.counters, labels);
    out.add(channel.name == "main" ? MetricScope::main_channel : MetricScope::multifd_channel,
            channel.counters, labels);
  }
  add_cores(out, r, last);
  out.add(MetricScope::dataplane, complete(MetricScope::dataplane, r.dataplane), {});
  out.add(MetricScope::memory, complete(MetricScope::memory, r.memory), {});
  return out.take();
}

}  // namespace migrx

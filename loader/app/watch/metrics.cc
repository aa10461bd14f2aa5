#include "loader/app/watch/metrics.h"

#include <algorithm>
#include <unordered_map>

#include "loader/session/session.h"

namespace migrx {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

class Collector {
 public:
  void add(const std::string& name, const std::string& help, MetricKind kind, Labels labels, double value) {
    const auto [at, fresh] = places_.try_emplace(name, all_.size());
    if (fresh) all_.push_back({name, help, kind, {}});
    all_[at->second].samples.push_back({std::move(labels), value});
  }
  void add(const MetricInfo& info, Labels labels, double value) {
    add(info.metric, info.help, info.kind, std::move(labels), value);
  }
  // Of the first scope whose part of the table has that counter.
  void add(std::initializer_list<MetricScope> scopes, const CounterList& counters, const Labels& labels) {
    for (const auto& [name, value] : counters)
      for (const MetricScope scope : scopes)
        if (const MetricInfo* const info = find_metric(scope, name); info != nullptr) {
          add(*info, labels, static_cast<double>(value));
          break;
        }
  }
  [[nodiscard]] Metrics take() { return std::move(all_); }

 private:
  Metrics all_;
  std::unordered_map<std::string, std::size_t> places_;
};

void add_session(Collector& out, const Report& r, const ProgressSample& progress) {
  out.add("migrx_build_info", "The program, as labels; always 1.", MetricKind::gauge,
          {{"version", r.version}, {"command", r.command}}, 1);
  for (const SessionState state :
       {SessionState::listening, SessionState::setup, SessionState::precopy, SessionState::switchover,
        SessionState::device_state, SessionState::colo, SessionState::done, SessionState::failed})
    out.add("migrx_session_state", "1 for the state that the session is in.", MetricKind::gauge,
            {{"state", to_string(state)}}, progress.phase == std::string(to_string(state)) ? 1 : 0);
  for (const SessionValue& value : values_of(SessionNumbers{r, progress})) {
    Labels labels;
    if (!value.info->moment.empty()) labels.emplace_back("moment", value.info->moment);
    out.add(*value.info, std::move(labels), value.value);
  }
}

void add_cores(Collector& out, const Report& r, CoreTimes& last) {
  CoreTimes now;
  for (const CoreReport& core : r.cores) {
    const Labels labels{{"cpu", std::to_string(core.cpu)}, {"role", core.role}};
    for (const SessionValue& value : values_of(core)) out.add(*value.info, labels, value.value);
    const auto before =
        std::find_if(last.begin(), last.end(), [&](const auto& entry) { return entry.first == core.cpu; });
    const double busy = core.busy_s - (before == last.end() ? 0 : before->second.first);
    const double idle = core.idle_s - (before == last.end() ? 0 : before->second.second);
    out.add("migrx_core_useful_ratio",
            "Share of the last interval in turns that found something to do; the rest is polling or sleep.",
            MetricKind::gauge, labels, busy + idle > 0 ? std::clamp(busy / (busy + idle), 0.0, 1.0) : 0);
    out.add({MetricScope::core}, core.counters, labels);
    now.push_back({core.cpu, {core.busy_s, core.idle_s}});
  }
  last = std::move(now);
}

}  // namespace

Metrics metrics_of(const Report& r, const ProgressSample& progress, CoreTimes& last) {
  Collector out;
  add_session(out, r, progress);
  for (const ChannelReport& channel : r.channels) {
    const MetricScope own = channel.name == "main" ? MetricScope::main_channel : MetricScope::multifd_channel;
    out.add({own, MetricScope::channel, MetricScope::snapshot}, channel.counters,
            {{"channel", channel.name}});
  }
  add_cores(out, r, last);
  out.add({MetricScope::dataplane}, r.dataplane, {});
  out.add({MetricScope::colo}, r.colo, {});
  out.add({MetricScope::memory}, r.memory, {});
  return out.take();
}

}  // namespace migrx

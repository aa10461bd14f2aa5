#include "loader/app/watch/metrics.h"

#include <algorithm>
#include <unordered_map>

#include "loader/session/session.h"

namespace migrx {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kMain = "main";

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

Labels with(Labels labels, const char* name, std::string value) {
  labels.emplace_back(name, std::move(value));
  return labels;
}

void add_process(Collector& out, const Report& r) {
  out.add("migrx_build_info", "The program, as labels; always 1.", MetricKind::gauge,
          {{"version", r.version}, {"command", r.command}}, 1);
  for (const SessionValue& value : values_of(r)) out.add(*value.info, {}, value.value);
}

void add_state(Collector& out, const char* state, const std::string& now, const Labels& labels) {
  out.add("migrx_session_state", "1 for the state that the session is in.", MetricKind::gauge,
          with(labels, "state", state), now == state ? 1 : 0);
}

void add_session(Collector& out, const Report& r, const ProgressSample& progress, const std::string& state,
                 const Labels& labels) {
  for (const SessionState each :
       {SessionState::listening, SessionState::setup, SessionState::precopy, SessionState::switchover,
        SessionState::device_state, SessionState::postcopy, SessionState::postcopy_paused, SessionState::colo,
        SessionState::done, SessionState::failed})
    add_state(out, to_string(each), state, labels);
  for (const SessionValue& value : values_of(SessionNumbers{r, progress}))
    out.add(*value.info, value.info->moment.empty() ? labels : with(labels, "moment", value.info->moment),
            value.value);
  for (const ChannelReport& channel : r.channels) {
    const MetricScope own = channel.name == kMain ? MetricScope::main_channel : MetricScope::multifd_channel;
    out.add({own, MetricScope::channel, MetricScope::snapshot}, channel.counters,
            with(labels, "channel", channel.name));
  }
  out.add({MetricScope::postcopy}, r.postcopy, labels);
  out.add({MetricScope::colo}, r.colo, labels);
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
  add_process(out, r);
  add_session(out, r, progress, progress.phase, {});
  add_cores(out, r, last);
  out.add({MetricScope::dataplane}, r.dataplane, {});
  out.add({MetricScope::memory}, r.memory, {});
  return out.take();
}

Report condensed(const Report& report) {
  Report out;
  out.started_unix_s = report.started_unix_s;
  out.warnings.resize(report.warnings.size());  // how many
  out.tls = report.tls;
  out.tls_records = report.tls_records;
  out.handoff_tls = report.handoff_tls;
  out.timeline = report.timeline;
  out.postcopy = report.postcopy;
  out.colo = report.colo;
  for (const ChannelReport& channel : report.channels) {
    const std::string kind = channel.name == kMain ? kMain : "multifd";
    auto sum = std::find_if(out.channels.begin(), out.channels.end(),
                            [&](const ChannelReport& known) { return known.name == kind; });
    if (sum == out.channels.end()) {
      out.channels.push_back({kind, "", -1, -1, "", channel.counters});
      continue;
    }
    for (const auto& [name, value] : channel.counters) {
      const MetricInfo* info = find_metric(MetricScope::channel, name);
      if (info == nullptr) info = find_metric(MetricScope::multifd_channel, name);
      const bool gauge = info != nullptr && info->kind == MetricKind::gauge;
      const auto known = std::find_if(sum->counters.begin(), sum->counters.end(),
                                      [&](const auto& counter) { return counter.first == name; });
      if (known == sum->counters.end())
        sum->counters.emplace_back(name, value);
      else
        known->second = gauge ? std::max(known->second, value) : known->second + value;
    }
  }
  return out;
}

Metrics metrics_of(const DaemonLook& look, CoreTimes& last) {
  Collector out;
  add_process(out, look.host);
  out.add({MetricScope::daemon}, counters_of(look.numbers), {});
  for (const SessionLook& session : look.sessions) {
    const Labels labels{{"session", session.id}};
    for (const char* const before : {"queued", "preparing"}) add_state(out, before, session.state, labels);
    add_session(out, session.report, session.progress, session.state, labels);
  }
  add_cores(out, look.host, last);
  out.add({MetricScope::dataplane}, look.host.dataplane, {});
  out.add({MetricScope::memory}, look.host.memory, {});
  return out.take();
}

}  // namespace migrx

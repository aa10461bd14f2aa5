#include "loader/app/watch/telemetry_pages.h"

namespace migrx {
namespace {

constexpr const char* kSessions = "/migrx/sessions";
constexpr const char* kCores = "/migrx/cores";
constexpr const char* kTcp = "/migrx/tcp";
constexpr const char* kPools = "/migrx/pools";

TelemetryFields fields_of(const CounterList& counters) {
  TelemetryFields out;
  for (const auto& [name, value] : counters) out.emplace_back(name, value);
  return out;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> telemetry_commands() {
  return {{kSessions, "State, progress and channels of the migration. Parameter: a channel, such as main"},
          {kCores, "Turns and time of each thread that polls or loads. Parameter: cpu_N"},
          {kTcp, "What became of frames and segments, all poll cores together"},
          {kPools, "Packet buffers, all poll cores together"}};
}

std::vector<TelemetryPage> telemetry_pages(const Report& report, const ProgressSample& progress) {
  TelemetryPage sessions{kSessions, {}};
  sessions.rows.push_back({"",
                           {{"state", std::string(progress.phase)},
                            {"channels", uint64_t{progress.channels}},
                            {"channels_expected", uint64_t{progress.channels_expected}},
                            {"wire_bytes", progress.wire_bytes},
                            {"pages", progress.pages},
                            {"zero_pages", progress.zero_pages},
                            {"rounds", progress.rounds},
                            {"ram_pages", progress.ram_pages},
                            {"first_pass_pages", progress.first_pass_pages}}});
  for (const ChannelReport& channel : report.channels)
    sessions.rows.emplace_back(channel.name, fields_of(channel.counters));
  TelemetryPage cores{kCores, {}};
  for (const CoreReport& core : report.cores) {
    TelemetryFields fields{{"role", core.role},
                           {"busy_us", static_cast<uint64_t>(core.busy_s * 1e6)},
                           {"idle_us", static_cast<uint64_t>(core.idle_s * 1e6)},
                           {"longest_turn_us", static_cast<uint64_t>(core.longest_turn_us)},
                           {"stalls", core.stalls}};
    for (auto& field : fields_of(core.counters)) fields.push_back(std::move(field));
    cores.rows.emplace_back("cpu_" + std::to_string(core.cpu), std::move(fields));
  }
  return {std::move(sessions),
          std::move(cores),
          {kTcp, {{"", fields_of(report.dataplane)}}},
          {kPools, {{"", fields_of(report.memory)}}}};
}

}  // namespace migrx

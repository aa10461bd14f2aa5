#include "loader/app/watch/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "loader/app/session_report.h"
#include "tests/loader/session/session_fixture.h"

namespace migrx {
namespace {

const MetricFamily* find(const Metrics& metrics, const std::string& name) {
  const auto at = std::find_if(metrics.begin(), metrics.end(),
                               [&](const MetricFamily& family) { return family.name == name; });
  return at == metrics.end() ? nullptr : &*at;
}

// Every list of counters that a report can have, each by the table's own readers.
Report sample_report() {
  Report report;
  report.version = "1.2.3";
  report.command = "receive";
  report.channels.push_back({"main", "192.0.2.7:1", 0, 1, "", counters_of(MainCounters{})});
  report.channels.push_back({"multifd 0", "192.0.2.7:2", 0, 1, "", counters_of(MultifdCounters{})});
  report.cores.push_back({"poll", 3, 0, 2.0, 6.0, 70.0, counters_of(AgentThreadCounters{})});
  PortTotals ports;
  ports.stats.rx_packets = 7;
  report.dataplane = counters_of({}, ports);
  report.memory = counters_of(BufferTotals{100, 60, true});
  return report;
}

// The numbers of a report that have no row: what says who or where, and what follows from others.
bool tells_who(const std::string& path) {
  static const std::set<std::string> names{"format", "poll_core", "loader_core", "cpu", "node"};
  return names.contains(path) || path.starts_with("throughput.") || path.starts_with("error.");
}

void add_numbers(const nlohmann::json& value, const std::string& path, std::vector<std::string>& out) {
  if (value.is_number()) out.push_back(path);
  if (value.is_object())
    for (const auto& [name, inner] : value.items())
      add_numbers(inner, path.empty() ? name : path + "." + name, out);
}

bool in_table(std::initializer_list<MetricScope> scopes, const std::string& name) {
  return std::any_of(scopes.begin(), scopes.end(),
                     [&](MetricScope scope) { return find_metric(scope, name) != nullptr; });
}

// Numbers of a report that the table lacks. Blocks are the guest's, as many as it likes, and no metrics.
std::vector<std::string> without_row(const Report& report) {
  nlohmann::json json = nlohmann::json::parse(to_json(report));
  std::vector<std::string> missing;
  const auto check = [&](const nlohmann::json& part, std::initializer_list<MetricScope> scopes) {
    std::vector<std::string> numbers;
    add_numbers(part, "", numbers);
    for (const std::string& name : numbers)
      if (!tells_who(name) && !in_table(scopes, name)) missing.push_back(name);
  };
  for (const auto& channel : json["channels"])
    check(channel, {channel["name"] == "main" ? MetricScope::main_channel : MetricScope::multifd_channel,
                    MetricScope::channel, MetricScope::snapshot});
  for (const auto& core : json["cores"]) check(core, {MetricScope::core});
  const std::pair<const char*, MetricScope> parts[] = {
      {"dataplane", MetricScope::dataplane}, {"colo", MetricScope::colo}, {"memory", MetricScope::memory}};
  for (const auto& [name, scope] : parts) {
    const nlohmann::json part = json.value(name, nlohmann::json::object());
    for (const auto& [counter, value] : part.items())
      if (!in_table({scope}, counter)) missing.push_back(std::string(name) + ": " + counter);
  }
  for (const char* const part : {"channels", "cores", "dataplane", "colo", "memory", "blocks", "links"})
    json.erase(part);
  check(json, {MetricScope::process, MetricScope::session});
  return missing;
}

TEST(MetricTable, a_counter_that_it_lacks_is_found) {
  Report report = sample_report();
  report.timeline = {0.1, 1, 2, 3, 4, 5, 6, 7, 8};
  report.tls.session = "TLS1.3";
  report.colo = {{"checkpoints", 1}};
  EXPECT_EQ(without_row(report), std::vector<std::string>{});
  report.dataplane.emplace_back("tcp.made_up", 1);
  report.cores[0].counters.emplace_back("made_up", 1);
  report.channels[1].counters.emplace_back("xbzrle_pages", 1);  // main's, not multifd's
  report.memory.emplace_back("made_up", 1);
  EXPECT_EQ(without_row(report), (std::vector<std::string>{"xbzrle_pages", "made_up",
                                                           "dataplane: tcp.made_up", "memory: made_up"}));
}

// A counter of the enumerations is in report and table without anybody's doing.
TEST(MetricTable, has_every_counter_of_the_dataplane) {
  std::set<std::string> told;
  for (const auto& [name, value] : counters_of({}, PortTotals{})) told.insert(name);
  std::set<std::string> known;
  for (const MetricInfo& info : metric_table())
    if (info.scope == MetricScope::dataplane) known.insert(info.report_name);
  EXPECT_EQ(told, known);
  EXPECT_EQ(told.size(), 8 + kPollCounterInfo.size() + kWireCounterInfo.size() + kTcpCounterInfo.size());
}

using MetricsOfSession = test::SessionFixture;

// A real session's report and its look while it runs have the same counters, and all of them a row.
TEST_F(MetricsOfSession, look_and_report_tell_the_same_counters) {
  start(0);
  test::Wire& main = connect();
  test::MainStreamBuilder b;
  b.header().configuration();
  main.give(b.take(), 1000);
  run();
  Report live;
  sample_channels(*session_, 0, live);
  Report report;
  report_session(*session_, *control_, blocks_, 0, {0}, report);
  ASSERT_EQ(report.channels.size(), 1U);
  ASSERT_EQ(live.channels.size(), 1U);
  EXPECT_EQ(live.channels[0].counters, report.channels[0].counters);
  EXPECT_GT(report.channels[0].counters.size(), 20U);
  EXPECT_EQ(without_row(report), std::vector<std::string>{});
}

TEST(MetricTable, names_follow_prometheus_rules) {
  std::set<std::string> seen;
  const std::regex word("migrx_[a-z][a-z0-9_]*");
  for (const MetricInfo& info : metric_table()) {
    EXPECT_TRUE(std::regex_match(info.metric, word)) << info.metric;
    EXPECT_EQ(info.metric.ends_with("_total"), info.kind == MetricKind::counter) << info.metric;
    EXPECT_TRUE(seen.insert(info.metric + info.moment).second) << info.metric << " twice";
    EXPECT_TRUE(info.help.ends_with(".")) << info.metric;
    EXPECT_NE(std::isupper(static_cast<unsigned char>(info.help.front())), 0) << info.metric;
    const std::string stem =
        info.kind == MetricKind::counter ? info.metric.substr(0, info.metric.size() - 6) : info.metric;
    EXPECT_EQ(stem.ends_with("_bytes"), info.unit == MetricUnit::bytes) << info.metric;
    EXPECT_EQ(stem.ends_with("_seconds"), info.unit == MetricUnit::seconds) << info.metric;
    EXPECT_EQ(stem.ends_with("_ratio"), info.unit == MetricUnit::ratio) << info.metric;
  }
}

// The page of all metrics is the table. To write it anew: MIGRX_WRITE_PAGES=1.
TEST(MetricTable, the_page_has_every_row) {
  std::string page =
      "# Metrics and counters\n\nThe rows of `loader/app/watch/metric_table.cc`, which a test keeps equal to "
      "this "
      "page. *Where* is the part of the\nJSON report (`docs/guide/report.md`) that has the counter under "
      "*name*.\n\n"
      "| where | name | metric | kind | unit | meaning |\n|---|---|---|---|---|---|\n";
  for (const MetricInfo& info : metric_table())
    page += std::string("| ") + to_string(info.scope) + " | " +
            (info.report_name.empty() ? "" : "`" + info.report_name + "`") + " | `" + info.metric +
            (info.moment.empty() ? "" : "{moment=\"" + info.moment + "\"}") + "` | " +
            (info.kind == MetricKind::counter ? "counter" : "gauge") + " | " + to_string(info.unit) + " | " +
            info.help + " |\n";
  const std::string path = std::string(MIGRX_SOURCE) + "/docs/monitoring/metrics.md";
  if (std::getenv("MIGRX_WRITE_PAGES") != nullptr) std::ofstream(path) << page;
  std::ifstream in(path);
  std::ostringstream found;
  found << in.rdbuf();
  EXPECT_EQ(found.str(), page);
}

TEST(Metrics, each_counter_of_a_report_is_told_once) {
  Report report = sample_report();
  CoreTimes last;
  const Metrics metrics = metrics_of(report, {}, last);
  for (const auto& [name, value] : report.channels[0].counters) {
    const MetricInfo* const info = find_metric(MetricScope::main_channel, name);
    ASSERT_NE(info, nullptr) << name;
    ASSERT_NE(find(metrics, info->metric), nullptr) << name;
    EXPECT_EQ(find(metrics, info->metric)->samples.size(), 1U);
  }
  // Zeros are left out of the report, not here: a counter that appears late loses its first steps.
  ASSERT_NE(find(metrics, "migrx_tcp_in_order_total"), nullptr);
  EXPECT_EQ(find(metrics, "migrx_tcp_in_order_total")->samples.at(0).value, 0);
  EXPECT_EQ(find(metrics, "migrx_port_rx_packets_total")->samples.at(0).value, 7);
  EXPECT_EQ(find(metrics, "migrx_rx_buffers_available")->samples.at(0).value, 60);
  EXPECT_EQ(find(metrics, "migrx_core_longest_turn_seconds")->samples.at(0).value, 70e-6);
  // Moments that did not come are not there, and those that did have one family.
  EXPECT_EQ(find(metrics, "migrx_session_moment_seconds"), nullptr);
  report.timeline.ready_s = 1.5;
  report.timeline.setup_s = 2.5;
  const Metrics later = metrics_of(report, {}, last);
  ASSERT_NE(find(later, "migrx_session_moment_seconds"), nullptr);
  ASSERT_EQ(find(later, "migrx_session_moment_seconds")->samples.size(), 2U);
  EXPECT_EQ(find(later, "migrx_session_moment_seconds")->samples[1].labels[0].second, "setup");
}

TEST(Metrics, a_core_s_share_is_that_of_the_last_interval) {
  Report report = sample_report();
  CoreTimes last;
  EXPECT_DOUBLE_EQ(find(metrics_of(report, {}, last), "migrx_core_useful_ratio")->samples.at(0).value, 0.25);
  report.cores[0].busy_s += 0.9;
  report.cores[0].idle_s += 0.1;
  EXPECT_NEAR(find(metrics_of(report, {}, last), "migrx_core_useful_ratio")->samples.at(0).value, 0.9, 1e-9);
  // Nothing passed: no division by zero.
  EXPECT_EQ(find(metrics_of(report, {}, last), "migrx_core_useful_ratio")->samples.at(0).value, 0);
}

double value_of(const Metrics& metrics, const std::string& name, const std::string& label,
                const std::string& value, const std::string& session) {
  const MetricFamily* const family = find(metrics, name);
  if (family == nullptr) return -1;
  for (const MetricSample& sample : family->samples) {
    const auto has = [&](const std::string& wanted, const std::string& text) {
      return std::find(sample.labels.begin(), sample.labels.end(), std::pair{wanted, text}) !=
             sample.labels.end();
    };
    if (has("session", session) && (label.empty() || has(label, value))) return sample.value;
  }
  return -1;
}

TEST(MetricsOfDaemon, each_session_has_its_own_and_the_host_is_told_once) {
  DaemonLook look;
  look.host = sample_report();
  look.numbers.promised.sessions = 1;
  look.numbers.refused = 3;
  look.numbers.draining = true;
  for (const char* const id : {"s1", "s2"}) look.sessions.push_back({id, "precopy", sample_report(), {}});
  look.sessions[1].state = "queued";
  look.sessions[0].progress.wire_bytes = 5000;
  look.sessions[0].report.timeline.ready_s = 2;
  CoreTimes last;
  const Metrics metrics = metrics_of(look, last);
  EXPECT_EQ(value_of(metrics, "migrx_session_wire_bytes_total", "", "", "s1"), 5000);
  EXPECT_EQ(value_of(metrics, "migrx_session_wire_bytes_total", "", "", "s2"), 0);
  EXPECT_EQ(value_of(metrics, "migrx_session_state", "state", "precopy", "s1"), 1);
  EXPECT_EQ(value_of(metrics, "migrx_session_state", "state", "queued", "s1"), 0);
  EXPECT_EQ(value_of(metrics, "migrx_session_state", "state", "queued", "s2"), 1);
  EXPECT_EQ(value_of(metrics, "migrx_session_moment_seconds", "moment", "ready", "s1"), 2);
  EXPECT_EQ(value_of(metrics, "migrx_main_normal_pages_total", "channel", "main", "s2"), 0);
  EXPECT_EQ(find(metrics, "migrx_serve_sessions")->samples.at(0).value, 1);
  EXPECT_EQ(find(metrics, "migrx_serve_refused_total")->samples.at(0).value, 3);
  EXPECT_EQ(find(metrics, "migrx_serve_draining")->samples.at(0).value, 1);
  for (const char* const once : {"migrx_build_info", "migrx_process_cpu_seconds_total", "migrx_rx_buffers",
                                 "migrx_port_rx_packets_total", "migrx_core_useful_ratio"}) {
    ASSERT_NE(find(metrics, once), nullptr) << once;
    EXPECT_EQ(find(metrics, once)->samples.size(), 1U) << once;
  }
  // A family that stood in two places would be refused by those who scrape.
  std::set<std::string> names;
  for (const MetricFamily& family : metrics) EXPECT_TRUE(names.insert(family.name).second) << family.name;
}

TEST(MetricsOfDaemon, a_session_s_channels_are_summed_by_kind) {
  Report report = sample_report();
  report.channels.push_back(report.channels[1]);
  report.channels[2].name = "multifd 1";
  for (std::size_t i = 1; i < 3; ++i) {
    report.channels[i].counters.emplace_back("segments", 10 * i);
    report.channels[i].counters.emplace_back("ring_depth_max", 7 * i);
  }
  report.channels[2].counters.emplace_back("acks_sent", 4);  // one has it, the other does not
  report.blocks.resize(300);
  report.warnings = {"a", "b"};
  const Report small = condensed(report);
  ASSERT_EQ(small.channels.size(), 2U);
  EXPECT_EQ(small.channels[0].name, "main");
  EXPECT_EQ(small.channels[1].name, "multifd");
  const std::map<std::string, uint64_t> sums(small.channels[1].counters.begin(),
                                             small.channels[1].counters.end());
  EXPECT_EQ(sums.at("segments"), 30U);
  EXPECT_EQ(sums.at("ring_depth_max"), 14U);
  EXPECT_EQ(sums.at("acks_sent"), 4U);
  EXPECT_TRUE(small.blocks.empty());
  EXPECT_EQ(small.warnings.size(), 2U);
}

TEST(Metrics, one_state_is_set) {
  ProgressSample progress;
  progress.phase = "device state";
  CoreTimes last;
  const Metrics metrics = metrics_of(sample_report(), progress, last);
  double sum = 0;
  for (const MetricSample& sample : find(metrics, "migrx_session_state")->samples) sum += sample.value;
  EXPECT_EQ(sum, 1);
}

}  // namespace
}  // namespace migrx

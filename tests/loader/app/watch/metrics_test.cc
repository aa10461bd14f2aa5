#include "loader/app/watch/metrics.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

#include "dataplane/poll_core.h"
#include "loader/app/session_report.h"
#include "loader/app/watch/metrics_server.h"

namespace migrx {
namespace {

const MetricFamily* find(const Metrics& metrics, const std::string& name) {
  const auto at = std::find_if(metrics.begin(), metrics.end(),
                               [&](const MetricFamily& family) { return family.name == name; });
  return at == metrics.end() ? nullptr : &*at;
}

std::set<std::string> names(MetricScope scope) {
  std::set<std::string> out;
  for (const MetricInfo& info : metric_table())
    if (info.scope == scope) out.insert(info.report_name);
  return out;
}

Report sample_report() {
  Report report;
  report.version = "1.2.3";
  report.channels.push_back({"main", "192.0.2.7:1", 0, 1, "", main_counters(MainCounters{})});
  report.cores.push_back({"poll", 3, 0, 2.0, 6.0, 70.0, {{"turns", 100}, {"busy_turns", 40}}});
  report.dataplane = {{"poll.frames", 7}};
  report.memory = {{"rx_buffers", 100}, {"rx_buffers_available", 60}, {"hugepage_pools", 1}};
  return report;
}

// What the report tells of main is in the table, and the other way round.
TEST(MetricTable, has_the_report_s_counters_of_main) {
  std::set<std::string> told;
  for (const auto& [name, value] : main_counters(MainCounters{})) told.insert(name);
  EXPECT_EQ(told, names(MetricScope::main_channel));
}

TEST(MetricTable, has_every_counter_of_the_dataplane) {
  std::set<std::string> known;
  for (const CounterInfo& info : kPollCounterInfo) known.insert("poll." + std::string(info.name));
  for (const CounterInfo& info : kWireCounterInfo) known.insert("wire." + std::string(info.name));
  for (const CounterInfo& info : kTcpCounterInfo) known.insert("tcp." + std::string(info.name));
  for (const char* const name : {"link_changes", "rx_packets", "rx_bytes", "rx_missed", "rx_errors",
                                 "rx_no_buffer", "tx_packets", "tx_errors"})
    known.insert(std::string("port.") + name);
  EXPECT_EQ(known, names(MetricScope::dataplane));
}

TEST(MetricTable, names_follow_prometheus_rules) {
  std::set<std::string> seen;
  for (const MetricInfo& info : metric_table()) {
    EXPECT_TRUE(std::regex_match(info.metric, std::regex("migrx_[a-z][a-z0-9_]*"))) << info.metric;
    EXPECT_EQ(info.metric.ends_with("_total"), info.kind == MetricKind::counter) << info.metric;
    EXPECT_TRUE(seen.insert(info.metric).second) << info.metric << " twice";
    EXPECT_TRUE(info.help.ends_with(".")) << info.metric;
    EXPECT_NE(std::isupper(static_cast<unsigned char>(info.help.front())), 0) << info.metric;
  }
}

TEST(Metrics, each_counter_of_a_report_is_told_once) {
  const Report report = sample_report();
  CoreTimes last;
  const Metrics metrics = metrics_of(report, {}, last);
  for (const auto& [name, value] : report.channels[0].counters) {
    const MetricInfo* const info = find_metric(MetricScope::main_channel, name);
    ASSERT_NE(info, nullptr) << name;
    ASSERT_NE(find(metrics, info->metric), nullptr) << name;
    EXPECT_EQ(find(metrics, info->metric)->samples.size(), 1U);
  }
  // Zeros are left out of the report, not here.
  ASSERT_NE(find(metrics, "migrx_tcp_in_order_total"), nullptr);
  EXPECT_EQ(find(metrics, "migrx_tcp_in_order_total")->samples.at(0).value, 0);
  EXPECT_EQ(find(metrics, "migrx_poll_frames_total")->samples.at(0).value, 7);
  EXPECT_EQ(find(metrics, "migrx_rx_buffers_available")->samples.at(0).value, 60);
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

TEST(Metrics, one_state_is_set) {
  ProgressSample progress;
  progress.phase = "device state";
  CoreTimes last;
  const Metrics metrics = metrics_of(sample_report(), progress, last);
  double sum = 0;
  for (const MetricSample& sample : find(metrics, "migrx_session_state")->samples) sum += sample.value;
  EXPECT_EQ(sum, 1);
}

TEST(MetricsAddress, loopback_unless_told_otherwise) {
  std::string address;
  bool loopback = false;
  for (const char* const text : {"9464", ":9464", "localhost:9464", "127.0.0.1:9464"}) {
    EXPECT_EQ(parse_metrics_address(text, address, loopback), "") << text;
    EXPECT_EQ(address, "127.0.0.1:9464");
    EXPECT_TRUE(loopback);
  }
  EXPECT_EQ(parse_metrics_address("[::1]:9464", address, loopback), "");
  EXPECT_TRUE(loopback);
  EXPECT_EQ(parse_metrics_address("192.0.2.10:80", address, loopback), "");
  EXPECT_FALSE(loopback);
  EXPECT_EQ(parse_metrics_address("0.0.0.0:80", address, loopback), "");
  EXPECT_FALSE(loopback);
  for (const char* const text : {"", ":", "0", "65536", "9464x", "host:80", "::1:80", "[]:80", "127.0.0.1",
                                 "1,2:80", "80s", "127.0.0.1:80,90"})
    EXPECT_NE(parse_metrics_address(text, address, loopback), "") << text;
}

// A port that the kernel had free a moment ago.
std::string free_address() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in local{};
  local.sin_family = AF_INET;
  local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof local;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&local), size), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size), 0);
  ::close(fd);
  return "127.0.0.1:" + std::to_string(ntohs(local.sin_port));
}

std::string get(const std::string& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.find(':') + 1))));
  EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  EXPECT_EQ(::write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string answer;
  char piece[4096];
  for (ssize_t n = 0; (n = ::read(fd, piece, sizeof piece)) > 0;)
    answer.append(piece, static_cast<std::size_t>(n));
  ::close(fd);
  return answer;
}

TEST(MetricsServer, answers_with_what_was_published_last) {
  const std::string address = free_address();
  MetricsServer server(address, {});
  CoreTimes last;
  server.publish(metrics_of(sample_report(), {}, last));
  Report report = sample_report();
  report.dataplane = {{"poll.frames", 8}};
  server.publish(metrics_of(report, {}, last));
  const std::string answer = get(address);
  EXPECT_NE(answer.find("200 OK"), std::string::npos);
  EXPECT_NE(answer.find("migrx_poll_frames_total 8"), std::string::npos) << answer.substr(0, 500);
  EXPECT_NE(answer.find("migrx_core_busy_seconds_total{cpu=\"3\",role=\"poll\"} 2"), std::string::npos);
}

TEST(MetricsServer, a_port_that_is_taken_is_refused_with_advice) {
  const std::string address = free_address();
  const MetricsServer first(address, {});
  try {
    const MetricsServer second(address, {});
    FAIL() << "two servers on one port";
  } catch (const std::runtime_error& problem) {
    EXPECT_NE(std::string(problem.what()).find("choose another"), std::string::npos);
  }
}

// Its threads are none of a poll core's, and the caller's own CPUs are as before.
TEST(MetricsServer, threads_stay_off_the_cpus_that_are_taken) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "one CPU only";
  int taken = 0;
  while (!CPU_ISSET(static_cast<std::size_t>(taken), &before)) ++taken;
  std::set<std::string> old;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) old.insert(task.path());
  const MetricsServer server(free_address(), {CpuId{taken}});
  uint32_t seen = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (old.contains(task.path())) continue;
    cpu_set_t cpus;
    ASSERT_EQ(::sched_getaffinity(std::stoi(task.path().filename()), sizeof cpus, &cpus), 0);
    EXPECT_FALSE(CPU_ISSET(static_cast<std::size_t>(taken), &cpus));
    ++seen;
  }
  EXPECT_GT(seen, 0U);
  cpu_set_t after;
  ASSERT_EQ(::sched_getaffinity(0, sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

}  // namespace
}  // namespace migrx

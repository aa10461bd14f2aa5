#include "loader/app/watch/metrics_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>
#include <thread>

#include "loader/app/setup_error.h"
#include "loader/app/watch/metric_table.h"
#include "loader/app/watch/watch.h"
#include "numa/descriptor.h"

namespace migrx {
namespace {

using Clock = std::chrono::steady_clock;

Report sample_report(uint64_t packets) {
  Report report;
  report.version = "1.2.3";
  report.cores.push_back({"poll", 3, 0, 2.0, 6.0, 70.0, counters_of(AgentThreadCounters{})});
  PortTotals ports;
  ports.stats.rx_packets = packets;
  report.dataplane = counters_of({}, ports);
  return report;
}

Metrics sample_metrics(uint64_t packets) {
  CoreTimes last;
  return metrics_of(sample_report(packets), {}, last);
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

sockaddr_in socket_address(const std::string& address) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.find(':') + 1))));
  return to;
}

std::string get(const std::string& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in to = socket_address(address);
  EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
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
  server.publish(sample_metrics(7));
  server.publish(sample_metrics(8));
  const std::string answer = get(address);
  EXPECT_NE(answer.find("200 OK"), std::string::npos);
  EXPECT_NE(answer.find("migrx_port_rx_packets_total 8"), std::string::npos) << answer.substr(0, 500);
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

// A client that is connected, or about to be where nobody takes it.
Descriptor connect_to(const std::string& address, const std::string& words) {
  Descriptor fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  const int small = 1024;  // a window that the answer does not fit in
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  const sockaddr_in to = socket_address(address);
  (void)::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to);
  pollfd ready{fd.get(), POLLOUT, 0};
  if (::poll(&ready, 1, 200) == 1) (void)::send(fd.get(), words.data(), words.size(), MSG_NOSIGNAL);
  return fd;
}

double seconds_since(Clock::time_point begun) {
  return std::chrono::duration<double>(Clock::now() - begun).count();
}

// Whether the kernel gives the port to somebody else within some seconds.
bool becomes_free(const std::string& address) {
  for (int i = 0; i < 200; ++i) {
    try {
      const MetricsServer next(address, {});
      return true;
    } catch (const std::runtime_error&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  return false;
}

// Publishing and ending take no time while `clients` do what they do. How long an end takes when nobody waits
// for the clients: threads are scheduled, on a machine with other work.
void expect_no_delay(const std::string& address, std::unique_ptr<MetricsServer> server) {
  Clock::time_point begun = Clock::now();
  for (uint64_t i = 0; i < 10; ++i) server->publish(sample_metrics(i));
  EXPECT_LT(seconds_since(begun), 1);
  begun = Clock::now();
  server.reset();
  EXPECT_LT(seconds_since(begun), 1);
  EXPECT_TRUE(becomes_free(address));
}

TEST(MetricsClients, one_that_never_reads_delays_nothing) {
  const std::string address = free_address();
  auto server = std::make_unique<MetricsServer>(address, std::vector<CpuId>{});
  // An answer of megabytes, more than the sockets' buffers hold.
  Metrics large = sample_metrics(1);
  large.push_back({"migrx_large", "Large.", MetricKind::gauge, {}});
  for (int i = 0; i < 100'000; ++i) large.back().samples.push_back({{{"i", std::to_string(i)}}, 1});
  server->publish(std::move(large));
  std::vector<Descriptor> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(connect_to(address, "GET /metrics HTTP/1.1\r\n\r\n"));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  expect_no_delay(address, std::move(server));
}

TEST(MetricsClients, slow_ones_delay_nothing_and_lose_their_place) {
  const std::string address = free_address();
  auto server = std::make_unique<MetricsServer>(address, std::vector<CpuId>{});
  server->publish(sample_metrics(5));
  std::vector<Descriptor> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(connect_to(address, "GET /met"));
  // Every thread has one. Whoever asks properly is answered when their time is over.
  EXPECT_NE(get(address).find("migrx_port_rx_packets_total 5"), std::string::npos);
  clients.clear();
  for (int i = 0; i < 4; ++i) clients.push_back(connect_to(address, "GET /met"));
  expect_no_delay(address, std::move(server));
}

TEST(MetricsClients, a_thousand_connections_cost_few_descriptors_and_no_time) {
  const std::string address = free_address();
  auto server = std::make_unique<MetricsServer>(address, std::vector<CpuId>{});
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = descriptors();
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit old = limit;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 4096);
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
  std::vector<Descriptor> clients;
  const sockaddr_in to = socket_address(address);
  for (int i = 0; i < 1000 && static_cast<rlim_t>(i) + 100 < limit.rlim_cur; ++i) {
    clients.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    (void)::connect(clients.back().get(), reinterpret_cast<const sockaddr*>(&to), sizeof to);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LE(descriptors() - before - static_cast<std::ptrdiff_t>(clients.size()), 32);
  expect_no_delay(address, std::move(server));
  (void)::setrlimit(RLIMIT_NOFILE, &old);
}

TEST(MetricsProblem, a_port_that_is_taken_is_found_before_anything_begins) {
  const std::string address = free_address();
  EXPECT_EQ(metrics_problem(address), "");
  const MetricsServer server(address, {});
  EXPECT_NE(metrics_problem(address).find("choose another port"), std::string::npos);
  EXPECT_NE(metrics_problem("192.0.2.77:9464").find("not this host's"), std::string::npos);
  EXPECT_NE(metrics_problem("nonsense").find("expected"), std::string::npos);
}

TEST(Watch, another_address_than_this_host_s_own_is_warned_of) {
  const std::string port = free_address().substr(10);
  EXPECT_EQ(Watch("127.0.0.1:" + port, {}, {}).warning(), "");
  std::string warning;
  for (int i = 0; warning.empty() && i < 100; ++i) {  // the one before lets go of the port in its own time
    try {
      warning = Watch("0.0.0.0:" + port, {}, {}).warning();
    } catch (const SetupError&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  EXPECT_NE(warning.find("everybody who reaches it"), std::string::npos);
}

// While the guest stands still a look waits until the control thread had nothing to do for a while.
TEST(Watch, looks_once_a_second_and_not_into_the_downtime) {
  Watch watch(free_address(), {}, {});
  int looks = 0;
  const auto sample = [&](Report&) {
    ++looks;
    return ProgressSample{};
  };
  watch.look(1.0, SessionState::precopy, 1, sample);
  EXPECT_EQ(looks, 1);
  watch.look(1.9, SessionState::precopy, 1, sample);
  EXPECT_EQ(looks, 1);
  watch.look(2.1, SessionState::switchover, 1, sample);
  watch.look(2.11, SessionState::device_state, 0, sample);
  EXPECT_EQ(looks, 1);
  watch.look(2.2, SessionState::device_state, 0, sample);
  EXPECT_EQ(looks, 2);
  for (double now_s = 2.2; now_s < 60; now_s += 0.01)
    watch.look(now_s, SessionState::device_state, 1, sample);
  EXPECT_EQ(looks, 2);
}

// Of many migrations one may always be standing still.
TEST(Watch, looks_at_a_daemon_after_three_seconds_all_the_same) {
  Report head;
  head.version = "1.2.3";
  Watch watch(free_address(), {}, head);
  std::vector<double> looks;
  double now_s = 1;
  const auto sample = [&](const Report& host) {
    looks.push_back(now_s);
    EXPECT_EQ(host.version, "1.2.3");
    return DaemonLook{host, {}, {}};
  };
  for (; now_s < 12; now_s += 0.01) watch.look(now_s, /*guest_stands_still=*/true, 1, sample);
  ASSERT_EQ(looks.size(), 3U);
  EXPECT_NEAR(looks[0], 3, 0.05);  // the first was due at the start
  EXPECT_NEAR(looks[1] - looks[0], 4, 0.05);
  watch.look(now_s += 1, /*guest_stands_still=*/true, 0, sample);
  EXPECT_EQ(looks.size(), 4U);
  watch.look(now_s += 1.1, /*guest_stands_still=*/false, 1, sample);
  EXPECT_EQ(looks.size(), 5U);
}

}  // namespace
}  // namespace migrx

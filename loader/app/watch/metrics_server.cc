#include "loader/app/watch/metrics_server.h"

#include <arpa/inet.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <future>
#include <mutex>
#include <system_error>
#include <thread>

#include "loader/app/setup_error.h"
#include "numa/descriptor.h"

namespace migrx {
namespace {

// What the library is told. A client that sends its request slowly, or does not take the answer, has a thread
// for two seconds; of those that wait meanwhile the library holds as many as its queue, the kernel as many as
// the backlog, and the others hear nothing.
const std::vector<std::string>& server_options() {
  static const std::vector<std::string> options{"num_threads",       "4",   "request_timeout_ms", "2000",
                                                "enable_keep_alive", "no",  "linger_timeout_ms",  "0",
                                                "listen_backlog",    "64",  "connection_queue",   "16",
                                                "max_request_size",  "4096"};
  return options;
}

// Keeps the calling thread off some CPUs and gives it the lowest priority; threads that it
// makes inherit both.
void step_aside(const std::vector<CpuId>& taken) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (const CpuId cpu : taken)
      if (cpu.value() >= 0 && cpu.value() < CPU_SETSIZE)
        CPU_CLR(static_cast<std::size_t>(cpu.value()), &allowed);
    // None left: the host has no others.
    if (CPU_COUNT(&allowed) > 0) (void)::sched_setaffinity(0, sizeof allowed, &allowed);
  }
  constexpr int kNice = 10;
  (void)::setpriority(PRIO_PROCESS, 0, kNice);  // of this thread alone, with Linux
}

prometheus::MetricFamily to_prometheus(const MetricFamily& family) {
  prometheus::MetricFamily out;
  out.name = family.name;
  out.help = family.help;
  out.type =
      family.kind == MetricKind::counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
  for (const MetricSample& sample : family.samples) {
    prometheus::ClientMetric metric;
    for (const auto& [name, value] : sample.labels) metric.label.push_back({name, value});
    metric.counter.value = sample.value;
    metric.gauge.value = sample.value;
    out.metric.push_back(std::move(metric));
  }
  return out;
}

std::string cannot_listen(const std::string& address, int error) {
  return "--metrics: cannot listen on " + address + ": " + std::strerror(error) +
         (error == EADDRNOTAVAIL ? ": the address is not this host's; name one that is"
          : error == EACCES      ? ": ports below 1024 are root's; choose another"
                            : ": choose another port, or end the process that has it (ss -ltnp shows which)");
}

}  // namespace

std::string parse_metrics_address(const std::string& text, std::string& address, bool& loopback) {
  const std::string wrong =
      "--metrics " + text + ": expected ADDRESS:PORT or a port of 127.0.0.1, such as 9464";
  const std::size_t colon = text.rfind(':');
  std::string host = colon == std::string::npos ? "" : text.substr(0, colon);
  const std::string digits = colon == std::string::npos ? text : text.substr(colon + 1);
  unsigned port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc{} || end != digits.data() + digits.size() || port == 0 || port > 65535) return wrong;
  if (host.empty() || host == "localhost") host = "127.0.0.1";
  in_addr v4{};
  in6_addr v6{};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    loopback = (ntohl(v4.s_addr) >> 24) == 127;
  } else if (host.size() > 2 && host.front() == '[' && host.back() == ']' &&
             ::inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6) == 1) {
    loopback = IN6_IS_ADDR_LOOPBACK(&v6);
  } else {
    return wrong;
  }
  address = host + ":" + std::to_string(port);
  return {};
}

class MetricsServer::Board : public prometheus::Collectable {
 public:
  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override {
    std::shared_ptr<const Metrics> now;
    {
      const std::lock_guard lock(mutex_);
      now = metrics_;
    }
    std::vector<prometheus::MetricFamily> out;
    if (now != nullptr)
      for (const MetricFamily& family : *now) out.push_back(to_prometheus(family));
    return out;
  }
  void publish(Metrics metrics) {
    auto fresh = std::make_shared<const Metrics>(std::move(metrics));
    const std::lock_guard lock(mutex_);
    metrics_.swap(fresh);
  }

 private:
  mutable std::mutex mutex_;  // held for the copy of a pointer only
  std::shared_ptr<const Metrics> metrics_;
};

class MetricsServer::Exposition {
 public:
  Exposition(const std::string& address, const std::shared_ptr<Board>& board) : exposer_(options(address)) {
    exposer_.RegisterCollectable(board);
  }

 private:
  static std::vector<std::string> options(const std::string& address) {
    std::vector<std::string> all = server_options();
    all.insert(all.end(), {"listening_ports", address});
    return all;
  }
  prometheus::Exposer exposer_;
};

std::string metrics_problem(const std::string& text) {
  std::string address;
  bool loopback = false;
  if (std::string problem = parse_metrics_address(text, address, loopback); !problem.empty()) return problem;
  const std::size_t colon = address.rfind(':');
  const auto port = static_cast<uint16_t>(std::stoi(address.substr(colon + 1)));
  std::string host = address.substr(0, colon);
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  const bool is_v6 = host.front() == '[';
  if (is_v6) {
    host = host.substr(1, host.size() - 2);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    (void)::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr);
  } else {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    (void)::inet_pton(AF_INET, host.c_str(), &v4.sin_addr);
  }
  const Descriptor probe(::socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;  // as the server: what a process of old left in TIME-WAIT does not matter
  (void)::setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const int failed = is_v6 ? ::bind(probe.get(), reinterpret_cast<const sockaddr*>(&v6), sizeof v6)
                           : ::bind(probe.get(), reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
  if (failed == 0) return {};
  return cannot_listen(address, errno);
}

MetricsServer::MetricsServer(const std::string& address, const std::vector<CpuId>& taken)
    : board_(std::make_shared<Board>()) {
  // On a thread of its own, so that the caller stays where it is.
  std::thread maker([&] {
    step_aside(taken);
    try {
      exposition_ = std::make_unique<Exposition>(address, board_);
    } catch (const std::exception&) {
      exposition_ = nullptr;
    }
  });
  maker.join();
  if (exposition_ == nullptr) throw SetupError(cannot_listen(address, EADDRINUSE));
}

// The library joins its threads, and one that has a slow client may take seconds. No caller waits for it: the
// thread that does ends by itself, or with the process.
MetricsServer::~MetricsServer() {
  constexpr std::chrono::milliseconds kPatience{20};
  auto closed = std::make_shared<std::promise<void>>();
  const std::future<void> done = closed->get_future();
  Exposition* const exposition = exposition_.release();
  try {
    std::thread([exposition, board = board_, closed] {
      delete exposition;
      closed->set_value();
    }).detach();
  } catch (const std::system_error&) {
    return;  // no more threads: it ends with the process
  }
  (void)done.wait_for(kPatience);
}

void MetricsServer::publish(Metrics metrics) {
  board_->publish(std::move(metrics));
}

std::unique_ptr<MetricsServer> serve_metrics(const std::string& text, const std::vector<CpuId>& taken,
                                             std::string& warning) {
  std::string listening;
  bool loopback = false;
  if (const std::string problem = parse_metrics_address(text, listening, loopback); !problem.empty())
    throw SetupError(problem);
  if (!loopback)
    warning =
        "--metrics " + text + " answers everybody who reaches it, without encryption: 127.0.0.1 is safer";
  return std::make_unique<MetricsServer>(listening, taken);
}

}  // namespace migrx

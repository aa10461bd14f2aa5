#include "loader/app/watch/metrics_server.h"

#include <arpa/inet.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <mutex>
#include <stdexcept>

namespace migrx {
namespace {

// The calling thread off some CPUs for a while: threads that it makes inherit that.
class StayOff {
 public:
  explicit StayOff(const std::vector<CpuId>& taken) {
    CPU_ZERO(&before_);
    if (::sched_getaffinity(0, sizeof before_, &before_) != 0) return;
    // The control thread may be pinned itself: every CPU that the process could have is asked for, and the
    // kernel keeps those that the cpuset allows.
    cpu_set_t wanted;
    CPU_ZERO(&wanted);
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (std::none_of(taken.begin(), taken.end(),
                       [&](CpuId id) { return static_cast<std::size_t>(id.value()) == cpu; }))
        CPU_SET(cpu, &wanted);
    moved_ = ::sched_setaffinity(0, sizeof wanted, &wanted) == 0;  // fails when nothing would be left
  }
  ~StayOff() {
    if (moved_) (void)::sched_setaffinity(0, sizeof before_, &before_);
  }
  StayOff(const StayOff&) = delete;
  StayOff& operator=(const StayOff&) = delete;

 private:
  cpu_set_t before_{};
  bool moved_ = false;
};

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
  explicit Exposition(const std::string& address)
      : exposer_({"listening_ports", address, "num_threads", "2"}) {}
  [[nodiscard]] prometheus::Exposer& exposer() noexcept { return exposer_; }

 private:
  prometheus::Exposer exposer_;
};

MetricsServer::MetricsServer(const std::string& address, const std::vector<CpuId>& taken)
    : board_(std::make_shared<Board>()) {
  const StayOff stay_off(taken);
  try {
    exposition_ = std::make_unique<Exposition>(address);
  } catch (const std::exception&) {
    throw std::runtime_error("--metrics: cannot listen on " + address +
                             ": the port is taken, or the address is not this host's; choose another");
  }
  exposition_->exposer().RegisterCollectable(board_);
}

MetricsServer::~MetricsServer() = default;

void MetricsServer::publish(Metrics metrics) {
  board_->publish(std::move(metrics));
}

}  // namespace migrx

// The metrics over HTTP, for Prometheus. The library's threads stay off the CPUs that poll and load.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "loader/app/watch/metrics.h"
#include "numa/ids.h"

namespace migrx {

// "9464" or ":9464" is a port of 127.0.0.1; otherwise "192.0.2.10:9464" or "[::1]:9464". Empty: `address` is
// filled, as the server takes it; otherwise what is wrong.
[[nodiscard]] std::string parse_metrics_address(const std::string& text, std::string& address,
                                                bool& loopback);

// Whether the address of --metrics can be bound now: tries for a moment and changes nothing. Empty: yes;
// otherwise what to do.
[[nodiscard]] std::string metrics_problem(const std::string& text);

// However many clients there are and whatever they do or leave undone, they cost some threads of low
// priority, and neither publish() nor the end waits for them.
class MetricsServer {
 public:
  // `taken`: CPUs that none of its threads may run on, unless this process may use no other. Throws
  // SetupError when it cannot listen.
  MetricsServer(const std::string& address, const std::vector<CpuId>& taken);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  // What the next scrapes see. Never waits for a scrape. Control thread.
  void publish(Metrics metrics);

 private:
  class Board;
  std::shared_ptr<Board> board_;
  class Exposition;
  std::unique_ptr<Exposition> exposition_;
};

// The server for the address of --metrics, and a warning when others than this host reach it. Throws
// SetupError.
[[nodiscard]] std::unique_ptr<MetricsServer> serve_metrics(const std::string& text,
                                                           const std::vector<CpuId>& taken,
                                                           std::string& warning);

}  // namespace migrx

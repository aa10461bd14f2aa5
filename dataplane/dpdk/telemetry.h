// What DPDK's telemetry socket tells below /migrx/ (dpdk-telemetry.py). Its commands are answered on threads
// of DPDK's from what was published last; nobody else is asked.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace migrx {

using TelemetryFields = std::vector<std::pair<std::string, std::variant<uint64_t, std::string>>>;

// One command's answer. Characters that DPDK has no place for in a name, all but letters, digits and '_',
// become '_'.
struct TelemetryPage {
  std::string command;  // "/migrx/cores"
  // A row without a name gives its fields to the answer itself, others are objects of their own. With a
  // parameter ("/migrx/cores,cpu_3") the answer has that row alone, else at most kRowsMax.
  std::vector<std::pair<std::string, TelemetryFields>> rows;
};

// DPDK cannot forget a command, so one object at a time: what it registered answers with nothing after its
// end. Made after Eal, which must have telemetry on.
class Telemetry {
 public:
  static constexpr std::size_t kRowsMax = 64;

  // Commands and a sentence on each. Throws DpdkError.
  explicit Telemetry(const std::vector<std::pair<std::string, std::string>>& commands);
  ~Telemetry();
  Telemetry(const Telemetry&) = delete;
  Telemetry& operator=(const Telemetry&) = delete;

  // What is answered from now on. Waits for nobody who asks. Any one thread.
  void publish(std::vector<TelemetryPage> pages);
};

}  // namespace migrx

// What `migrx top` shows: a daemon's answers to query-host and query-sessions, and its events, as lines of
// text. Rates are between the last two answers. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace migrx {

// One thread. Nothing that a daemon answers makes it fail: what is missing or of another type is shown as
// "-".
class TopScreen {
 public:
  // now_s: when the answer came; any clock that goes forward.
  void take_host(const nlohmann::json& host, double now_s);
  void take_sessions(const nlohmann::json& sessions, double now_s);
  // clock: the time of day, for people.
  void take_event(const std::string& name, const nlohmann::json& data, const std::string& clock);

  // At most `height` lines of at most `width` columns, without line ends and control characters. Where there
  // is no room for all, events go first, then sessions that are over, then others.
  [[nodiscard]] std::vector<std::string> lines(unsigned width, unsigned height) const;

 private:
  static constexpr std::size_t kEventsMax = 8;

  // How fast a counter grows.
  struct Growth {
    double value = 0;
    double at_s = 0;
    bool known = false;
    std::optional<double> per_s;  // nothing before the second look, or when it was set back
  };
  static void grow(Growth& growth, double value, double now_s);

  [[nodiscard]] std::vector<std::string> host_lines(const nlohmann::json& host) const;
  [[nodiscard]] std::string session_line(const nlohmann::json& session) const;

  std::vector<std::string> host_;
  std::vector<std::string> sessions_;  // those under way first, then those that are over, the last one first
  std::map<std::string, Growth> counters_;  // of the dataplane, by name
  std::map<int64_t, Growth> busy_;          // seconds, by CPU
  std::map<int64_t, Growth> idle_;          // likewise
  std::map<std::string, Growth> received_;  // bytes, by session
  std::deque<std::string> events_;
};

}  // namespace migrx

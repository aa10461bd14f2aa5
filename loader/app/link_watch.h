// Links that come and go while a session runs. Pure: the caller looks at the ports.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loader/app/report.h"

namespace migrx {

// What became of one link. Control thread.
class LinkWatch {
 public:
  // Changes kept for the report; more are counted only.
  static constexpr std::size_t kEventsMax = 100;

  // Links are taken to be up at first: a session begins so.
  explicit LinkWatch(std::vector<std::string> ports);
  // `up` of port `port` now, with its speed and duplex in words. The line to tell; empty:
  // nothing has changed.
  [[nodiscard]] std::string look(std::size_t port, bool up, const std::string& words, double now_s);
  // Of all ports.
  [[nodiscard]] uint64_t changes() const noexcept { return changes_; }
  [[nodiscard]] const std::vector<LinkEvent>& events() const noexcept { return events_; }

 private:
  struct State {
    std::string port;
    bool up = true;
    double since_s = 0;
  };
  std::vector<State> states_;
  std::vector<LinkEvent> events_;
  uint64_t changes_ = 0;
};

// Whether the port's link comes with its peer process (memif, vhost). That process is the source itself as a
// rule, and it starts only when migrx is ready: migrx must not wait for such a link.
[[nodiscard]] bool link_comes_with_peer(const std::string& devargs);

}  // namespace migrx

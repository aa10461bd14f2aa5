// The connections that a receiver has, and those it took over, as its parent knows them (supervisor.h).
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "dataplane/reset_mode.h"
#include "loader/app/supervisor.h"

namespace migrx {

// Control thread.
class LiveConnections {
 public:
  explicit LiveConnections(const Lifeline& lifeline) : lifeline_(lifeline) {}

  void opened(uint32_t place, const LostConnection& connection);
  // Its peer knows.
  void ended(uint32_t place);
  // Its place is needed for another connection, and its peer may not know: it goes on under a place of its
  // own. Adds it to `lost`.
  struct List;
  void lose(uint32_t place, List& lost);
  // Of a predecessor: their peers are still to be told.
  void inherit(const std::vector<LostConnection>& lost);

  [[nodiscard]] bool empty() const noexcept { return connections_.empty(); }
  // All that are left, or only those inherited; `places` says which is which.
  struct List {
    std::vector<LostConnection> connections;
    std::vector<uint32_t> places;
  };
  [[nodiscard]] List all() const { return from(0); }
  [[nodiscard]] List inherited() const { return from(kInherited); }

 private:
  static constexpr uint32_t kInherited = 1U << 30;  // places from here on
  [[nodiscard]] List from(uint32_t first) const;

  const Lifeline& lifeline_;
  std::map<uint32_t, LostConnection> connections_;
  uint32_t next_ = kInherited;
};

}  // namespace migrx

#include "loader/app/serve/unreachable_listeners.h"

#include <algorithm>
#include <utility>

namespace migrx {

void UnreachableListeners::add(PortListener listener, std::string why, uint64_t now_ns) {
  list_.push_back({std::move(listener), std::move(why), now_ns});
}

std::vector<UnreachableListeners::One> UnreachableListeners::take_due(
    const std::vector<PortListener>& listeners, uint64_t now_ns) {
  const auto is_here = [this](uint64_t inode) {
    return std::any_of(list_.begin(), list_.end(),
                       [&](const One& one) { return one.listener.inode == inode; });
  };
  const auto settled = [&](const One& one) {
    const bool listens = std::find(listeners.begin(), listeners.end(), one.listener) != listeners.end();
    return !listens || std::any_of(listeners.begin(), listeners.end(), [&](const PortListener& other) {
      return other.port == one.listener.port && !is_here(other.inode);
    });
  };
  std::vector<One> kept;
  std::vector<One> due;
  for (One& one : list_) {
    if (settled(one)) continue;
    (now_ns - one.since_ns >= kPatienceNs ? due : kept).push_back(one);
  }
  list_ = std::move(kept);
  return due;
}

}  // namespace migrx

// Keeps a process alive when memory that it maps goes away under it.
//
// A file of guest RAM is somebody else's, too. Whoever can write it can cut it, and a page that is no longer
// there raises SIGBUS in whoever touches it, as does one that the hardware has lost (memory_failure of the
// kernel) or that a control group's limit for hugepages refuses. For a process that receives one guest that
// is the end of this guest's migration; one that receives many must not end for all of them.
//
// While a MappingGuard lives, such a fault inside a watched mapping puts private memory in the mapping's
// place and lets the thread go on: what it writes from then on is nobody's, and whoever owns the mapping
// hears of it and gives that guest up. Any other SIGBUS does what it did before.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "numa/descriptor.h"

namespace migrx {

class MappingGuard {
 public:
  static constexpr std::size_t kWatchedMax = 1024;
  using Place = std::size_t;

  // One at a time in a process: what a signal does is the process's. Before threads are started.
  MappingGuard();
  // Nothing is watched any more.
  ~MappingGuard();
  MappingGuard(const MappingGuard&) = delete;
  MappingGuard& operator=(const MappingGuard&) = delete;

  // begin, bytes: a whole mapping, until forget(). nullopt: kWatchedMax are watched already. Control thread,
  // as all below.
  [[nodiscard]] std::optional<Place> watch(std::byte* begin, std::size_t bytes);
  // No thread touches the mapping any more; it may be unmapped afterwards, not before.
  void forget(Place place);
  // A fault has come: nothing that is in the mapping now counts.
  [[nodiscard]] bool lost(Place place) const noexcept {
    return watched_[place].lost.load(std::memory_order_acquire);
  }
  // Readable once some mapping was lost, until clear_wake().
  [[nodiscard]] int wake_fd() const noexcept { return wake_.get(); }
  void clear_wake();

  // For the handler of SIGBUS. True: the memory is there now. Async-signal-safe.
  [[nodiscard]] bool replace(std::uintptr_t address) noexcept;

 private:
  struct Watched {
    std::atomic<std::uintptr_t> begin{0};
    std::atomic<std::size_t> bytes{0};  // 0: the place is free
    std::atomic<bool> lost{false};
  };
  std::array<Watched, kWatchedMax> watched_;
  Descriptor wake_;
};

}  // namespace migrx

// How many rounds brought pages, where a source ends each with a SYNC on every multifd channel (QEMU 8.1 and
// newer). Small rounds have one packet, on one channel: none sees all of them.
#pragma once

#include <atomic>
#include <cstdint>

#include "loader/stream/epoch.h"

namespace migrx {

// Shared by the channels of a session. Statistics: orders nothing.
class RoundCount {
 public:
  // A channel's worker: a packet with pages came in this epoch. Once per channel and epoch is enough. Epochs
  // of different channels never lie apart, as the flush barrier holds a channel that is ahead.
  void note(Epoch in) noexcept {
    const uint64_t epoch = in.number();
    uint64_t last = last_.load(std::memory_order_relaxed);
    while (epoch > last)
      if (last_.compare_exchange_weak(last, epoch, std::memory_order_relaxed)) {
        count_.fetch_add(1, std::memory_order_relaxed);
        return;
      }
  }
  // Any thread.
  [[nodiscard]] uint64_t count() const noexcept { return count_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> last_{0};  // pages come from epoch 1 on
  std::atomic<uint64_t> count_{0};
};

}  // namespace migrx

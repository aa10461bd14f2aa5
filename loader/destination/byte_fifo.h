// Bounded byte queue from main's worker to the control thread: the stream for the destination.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <memory>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/handoff/spsc_ring.h"

namespace migrx {

// Free-running positions, power-of-two mask. Invariant: tail - head <= capacity.
class ByteFifo {
 public:
  // capacity in bytes, rounded up to a power of two. Allocates once, here.
  explicit ByteFifo(std::size_t capacity)
      : mask_(std::bit_ceil(capacity) - 1), bytes_(std::make_unique<std::byte[]>(mask_ + 1)) {}

  // ---- Producer ----
  [[nodiscard]] std::size_t room() const noexcept {
    // pairs with consume(): those bytes have been read
    return mask_ + 1 - (tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_acquire));
  }
  // Takes as much as there is room for; returns how much. Visible at once.
  std::size_t write(Bytes bytes) noexcept {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);
    const std::size_t n = std::min(bytes.size(), room());
    const std::size_t at = tail & mask_;
    const std::size_t first = std::min(n, mask_ + 1 - at);
    if (first > 0) std::memcpy(bytes_.get() + at, bytes.data(), first);
    if (n > first) std::memcpy(bytes_.get(), bytes.data() + first, n - first);
    tail_.store(tail + n, std::memory_order_release);  // pairs with readable()
    return n;
  }

  // ---- Consumer ----
  // Bytes that lie side by side, oldest first; empty: nothing there.
  [[nodiscard]] Bytes readable() const noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);
    const std::size_t n = tail_.load(std::memory_order_acquire) - head;  // pairs with write()
    const std::size_t at = head & mask_;
    return {bytes_.get() + at, std::min(n, mask_ + 1 - at)};
  }
  void consume(std::size_t n) noexcept {
    head_.store(head_.load(std::memory_order_relaxed) + n, std::memory_order_release);  // pairs with room()
  }

  // Any thread.
  [[nodiscard]] bool empty() const noexcept {
    return tail_.load(std::memory_order_acquire) == head_.load(std::memory_order_acquire);
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return mask_ + 1; }

 private:
  const std::size_t mask_;
  const std::unique_ptr<std::byte[]> bytes_;
  alignas(kCacheLineBytes) std::atomic<std::size_t> tail_{0};  // written by the producer
  alignas(kCacheLineBytes) std::atomic<std::size_t> head_{0};  // written by the consumer
};

}  // namespace migrx

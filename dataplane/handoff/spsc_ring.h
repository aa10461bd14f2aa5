// Bounded single-producer/single-consumer ring for commands and events between two threads.
// The stream of packet slices has its own ring, handoff.h, which also carries buffers home.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace migrx {

inline constexpr std::size_t kCacheLineBytes = 64;

// Fetches a line that will be written, so that another core's copy is gone by then.
inline void prefetch_to_write(const void* p) noexcept {
#if defined(__x86_64__)
  // Without -mprfchw the compiler makes a prefetch for reading of __builtin_prefetch(p, 1). CPUs that do not
  // have the instruction take it for a NOP.
  __asm__ volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
#else
  __builtin_prefetch(p, 1);
#endif
}

// Free-running positions, power-of-two mask. Invariant: tail - head <= capacity.
template <class T>
class SpscRing {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  // capacity is rounded up to a power of two. Allocates once, here.
  explicit SpscRing(uint32_t capacity)
      : mask_(std::bit_ceil(capacity < 2 ? 2U : capacity) - 1), slots_(std::make_unique<T[]>(mask_ + 1)) {}

  // Producer thread. False: full, nothing was stored.
  [[nodiscard]] bool push(const T& value) noexcept {
    const uint32_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_seen_ > mask_) {
      head_seen_ = head_.load(std::memory_order_acquire);  // pairs with pop(): the slot is free again
      if (tail - head_seen_ > mask_) return false;
    }
    slots_[tail & mask_] = value;
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

  // Consumer thread. False: empty.
  [[nodiscard]] bool pop(T& value) noexcept {
    const uint32_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_seen_) {
      tail_seen_ = tail_.load(std::memory_order_acquire);  // pairs with push(): the slot is written
      if (head == tail_seen_) return false;
    }
    value = slots_[head & mask_];
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

  // Any thread; exact only for the producer (upper bound) and the consumer (lower bound).
  [[nodiscard]] uint32_t size() const noexcept {
    return tail_.load(std::memory_order_acquire) - head_.load(std::memory_order_acquire);
  }
  [[nodiscard]] uint32_t capacity() const noexcept { return mask_ + 1; }

 private:
  const uint32_t mask_;
  const std::unique_ptr<T[]> slots_;
  // Producer's line: tail_ is published, head_seen_ is its stale copy of head_.
  alignas(kCacheLineBytes) std::atomic<uint32_t> tail_{0};
  uint32_t head_seen_ = 0;
  // Consumer's line.
  alignas(kCacheLineBytes) std::atomic<uint32_t> head_{0};
  uint32_t tail_seen_ = 0;
};

}  // namespace migrx

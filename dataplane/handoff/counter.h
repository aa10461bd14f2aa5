// A statistics counter with one writing thread and any number of readers.
#pragma once

#include <atomic>
#include <cstdint>

namespace migrx {

// Writing is a plain load, add, store (no lock prefix): only the owning thread may call add() and set().
// Readers (the control thread) see some recent value; counters order nothing.
class Counter {
 public:
  void add(uint64_t n = 1) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void set(uint64_t n) noexcept { value_.store(n, std::memory_order_relaxed); }
  [[nodiscard]] uint64_t read() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace migrx

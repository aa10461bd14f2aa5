// QEMU's order rule between the main channel and the multifd channels.
//
// Epoch k is everything before the main channel's k-th marker (MULTIFD_FLUSH, or EOS for older sources) and
// before the k-th SYNC packet of every channel. All of epoch k must be in memory before any byte of epoch k+1
// is applied (QEMU migration/multifd.c, multifd_recv_sync_main):
//
//   channel i                              main
//   apply epoch k; arrive(i)               apply epoch k; at marker k: all_arrived(k)?
//   parked until released(k) ◀──────────── release(k)
//
// Nobody blocks a thread: a parser that has to wait reports `parked` and its worker serves others.
//
// Pages stand before the SYNC that main's last marker waits for: behind the end of RAM the guest may run, and
// no channel may begin or go on with a packet that has some. begin_pages() and release_all() see to it that
// one of both sides notices, however they meet.
//
// Memory order: arrive() releases the channel's page writes (the caller has done sfence for its non-temporal
// stores); all_arrived() acquires them, release() hands them on together with main's own, released() acquires
// both.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "dataplane/handoff/spsc_ring.h"

namespace migrx {

class FlushBarrier {
 public:
  explicit FlushBarrier(uint32_t channels)
      : channels_(channels), arrived_(std::make_unique<Line[]>(channels > 0 ? channels : 1)) {}

  [[nodiscard]] uint32_t channels() const noexcept { return channels_; }

  // Channel `i`'s worker: SYNC number `k` (from 0, ascending) and everything before it has been applied.
  void arrive(uint32_t i, uint64_t k) noexcept {
    arrived_[i].has_pages.store(false, std::memory_order_relaxed);
    arrived_[i].epochs.store(k + 1, std::memory_order_release);
  }
  // Channel `i`'s worker: a packet with pages begins. False: RAM is complete, and it must not be applied.
  [[nodiscard]] bool begin_pages(uint32_t i) noexcept {
    std::atomic<bool>& has_pages = arrived_[i].has_pages;
    // Store before load here, in release_all() too: both seq_cst, once per epoch.
    if (!has_pages.load(std::memory_order_relaxed)) has_pages.store(true, std::memory_order_seq_cst);
    return released_.load(std::memory_order_seq_cst) != UINT64_MAX;
  }
  // Channel `i`'s worker: may bytes behind SYNC k be applied?
  [[nodiscard]] bool released(uint64_t k) const noexcept {
    return released_.load(std::memory_order_acquire) > k;  // pairs with release()
  }

  // Main's worker: has every channel finished SYNC k?
  [[nodiscard]] bool all_arrived(uint64_t k) const noexcept {
    for (uint32_t i = 0; i < channels_; ++i)
      if (arrived_[i].epochs.load(std::memory_order_acquire) <= k) return false;  // pairs with arrive()
    return true;
  }
  // Main's worker: main stands at marker k and somebody has not arrived.
  void wait(uint64_t k) noexcept { waiting_.store(k + 1, std::memory_order_relaxed); }
  // Main's worker: marker k has been met and everything main had to apply before it is in memory.
  void release(uint64_t k) noexcept { released_.store(k + 1, std::memory_order_release); }
  // Main's worker: RAM is complete; whoever still comes with a SYNC passes (QEMU 9.1 and 9.2 send one more).
  // Returns the first channel with pages behind its last SYNC, channels() if there is none, as it must be.
  [[nodiscard]] uint32_t release_all() noexcept {
    released_.store(UINT64_MAX, std::memory_order_seq_cst);
    uint32_t i = 0;
    while (i < channels_ && !arrived_[i].has_pages.load(std::memory_order_seq_cst)) ++i;
    return i;
  }

  // Any thread, for reports.
  [[nodiscard]] uint64_t epochs_arrived(uint32_t i) const noexcept {
    return arrived_[i].epochs.load(std::memory_order_relaxed);
  }
  // Main waits at a marker for channel `i`: if that has ended, for ever.
  [[nodiscard]] bool main_waits_for(uint32_t i) const noexcept {
    const uint64_t waiting = waiting_.load(std::memory_order_relaxed);
    return waiting > epochs_released() && waiting > epochs_arrived(i);
  }
  // acquire pairs with release_all().
  [[nodiscard]] bool all_released() const noexcept {
    return released_.load(std::memory_order_acquire) == UINT64_MAX;
  }
  [[nodiscard]] uint64_t epochs_released() const noexcept {
    return released_.load(std::memory_order_relaxed);
  }

 private:
  struct alignas(kCacheLineBytes) Line {
    // Both are written by the channel's worker only.
    std::atomic<uint64_t> epochs{0};
    std::atomic<bool> has_pages{false};  // behind the last SYNC
  };
  const uint32_t channels_;
  const std::unique_ptr<Line[]> arrived_;
  // Written by main's worker only.
  alignas(kCacheLineBytes) std::atomic<uint64_t> released_{0};
  std::atomic<uint64_t> waiting_{0};
};

}  // namespace migrx

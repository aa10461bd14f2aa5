// QEMU's order rule between the main channel and the multifd channels.
//
// The source sends a page again when the guest has written to it, perhaps over another channel, and TCP does
// not order channels among each other. Without a rule the older bytes could arrive last and stay. So the
// source marks in every channel where a round of pages ends, and a receiver begins no round before all
// channels have finished the one before. Such a round is an epoch here.
//
// Epoch k is everything before the main channel's k-th marker (MULTIFD_FLUSH, or EOS for older sources) and
// before the k-th SYNC packet of every channel. All of epoch k must be in memory before any byte of epoch k+1
// is applied (QEMU migration/multifd.c, multifd_recv_sync_main):
//
//   channel i                              main
//   apply epoch k; arrive(i)               apply epoch k; at marker k: all_arrived(k)?
//   parked until released(k) ◀──────────── release(k)
//
// No thread ever blocks: a parser that has to wait reports `parked` and its worker serves others.
//
// All pages come before the SYNC that main's last marker waits for. After the end of RAM the guest may run,
// so no channel may begin, or go on with, a packet that has pages. begin_pages() and release_all() see to it
// that one of the two sides notices a violation, however they meet.
//
// Memory order: arrive() releases the channel's page writes (the caller has done sfence for its
// non-temporal stores); all_arrived() acquires them, release() hands them on together with main's own,
// released() acquires both.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "dataplane/handoff/spsc_ring.h"
#include "loader/stream/epoch.h"
#include "loader/stream/multifd_id.h"

namespace migrx {

class FlushBarrier {
 public:
  explicit FlushBarrier(uint32_t channels)
      : channels_(channels), arrived_(std::make_unique<Line[]>(channels > 0 ? channels : 1)) {}

  [[nodiscard]] uint32_t channels() const noexcept { return channels_; }

  // The channel's worker: the channel's SYNC that ends `epoch` and everything before it has been applied.
  // Epochs ascend.
  void arrive(MultifdId channel, Epoch epoch) noexcept {
    Line& line = arrived_[channel.number()];
    line.has_pages.store(false, std::memory_order_relaxed);
    line.epochs.store(epoch.number() + 1, std::memory_order_release);
  }
  // The channel's worker: a packet with pages begins. False: RAM is complete, and the packet must
  // not be applied.
  [[nodiscard]] bool begin_pages(MultifdId channel) noexcept {
    std::atomic<bool>& has_pages = arrived_[channel.number()].has_pages;
    // Store before load here, in release_all() too: both seq_cst, once per epoch.
    if (!has_pages.load(std::memory_order_relaxed)) has_pages.store(true, std::memory_order_seq_cst);
    return released_.load(std::memory_order_seq_cst) != UINT64_MAX;
  }
  // A channel's worker: may bytes after the SYNC of `epoch` be applied?
  [[nodiscard]] bool released(Epoch epoch) const noexcept {
    return released_.load(std::memory_order_acquire) > epoch.number();  // pairs with release()
  }

  // Main's worker: has every channel finished `epoch`?
  [[nodiscard]] bool all_arrived(Epoch epoch) const noexcept {
    for (uint32_t i = 0; i < channels_; ++i)
      if (arrived_[i].epochs.load(std::memory_order_acquire) <= epoch.number())
        return false;  // pairs with arrive()
    return true;
  }
  // Main's worker: main stands at the marker of `epoch` and a channel has not arrived.
  void wait(Epoch epoch) noexcept { waiting_.store(epoch.number() + 1, std::memory_order_relaxed); }
  // Main's worker: the marker of `epoch` has been met and everything that main had to apply before the marker
  // is in memory.
  void release(Epoch epoch) noexcept { released_.store(epoch.number() + 1, std::memory_order_release); }
  // Main's worker: RAM is complete; a channel that still comes with a SYNC passes (QEMU 9.1 and 9.2 send one
  // more). Returns the first channel with pages after its last SYNC; nothing, as it must be: there is none.
  [[nodiscard]] std::optional<MultifdId> release_all() noexcept {
    released_.store(UINT64_MAX, std::memory_order_seq_cst);
    for (uint32_t i = 0; i < channels_; ++i)
      if (arrived_[i].has_pages.load(std::memory_order_seq_cst)) return MultifdId{i};
    return std::nullopt;
  }

  // Any thread, for reports.
  // Epochs that the channel has finished: a count.
  [[nodiscard]] uint64_t epochs_arrived(MultifdId channel) const noexcept {
    return arrived_[channel.number()].epochs.load(std::memory_order_relaxed);
  }
  // Main waits at a marker for this channel: for ever, if the channel has ended.
  [[nodiscard]] bool main_waits_for(MultifdId channel) const noexcept {
    const uint64_t waiting = waiting_.load(std::memory_order_relaxed);
    return waiting > epochs_released() && waiting > epochs_arrived(channel);
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
    std::atomic<bool> has_pages{false};  // after the last SYNC
  };
  const uint32_t channels_;
  const std::unique_ptr<Line[]> arrived_;
  // Written by main's worker only.
  alignas(kCacheLineBytes) std::atomic<uint64_t> released_{0};
  std::atomic<uint64_t> waiting_{0};
};

}  // namespace migrx

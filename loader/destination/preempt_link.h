// The connection of postcopy-preempt to the destination QEMU: pages that its guest waits for overtake, on it,
// those that come anyway (QEMU migration/postcopy-ram.c, postcopy_preempt_thread). Nothing is ever sent back
// on it.
//
// The destination has it accepted beside main, before it reads (7.2, and machine types up to 7.2) or before
// it runs the guest; the source connects its own at the start, or at the switch. So it is made as soon as the
// destination is known to wait for it, and what the source's brings comes later, or never.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "loader/destination/byte_fifo.h"
#include "loader/destination/further_link.h"
#include "loader/session/urgent_pages.h"

namespace migrx {

class PreemptLink final : public UrgentPages {
 public:
  // ---- Control thread
  void begin(FurtherAddress to) {
    to_ = std::move(to);
    begun_.store(true, std::memory_order_release);
  }
  [[nodiscard]] bool begun() const noexcept { return begun_.load(std::memory_order_acquire); }
  // Connects, and sends what has come. Returns work done. problem() is set when it failed or ended.
  uint32_t do_work(uint64_t now_ns);
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
  [[nodiscard]] uint64_t bytes_sent() const noexcept { return sent_; }
  // All that came has left.
  [[nodiscard]] bool idle() const noexcept { return fifo_.empty() && !further_.link().sending(); }
  void close();
  // Of a connection that broke: what was left of it. While no worker writes.
  void forget();

  // ---- The source's preempt channel's worker
  [[nodiscard]] bool wanted() const noexcept override { return begun(); }
  std::size_t write(Bytes bytes) noexcept override { return fifo_.write(bytes); }
  [[nodiscard]] bool has_room() const noexcept override { return fifo_.room() > 0; }

 private:
  FurtherAddress to_;
  std::atomic<bool> begun_{false};
  FurtherLink further_;
  ByteFifo fifo_{std::size_t{1} << 20};
  uint64_t sent_ = 0;
  std::string problem_;
};

}  // namespace migrx

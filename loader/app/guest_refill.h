// The guest's memory is taken a second time, while the source waits: see MemoryRefill.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include "loader/app/guest_blocks.h"
#include "loader/destination/memory_refill.h"
#include "numa/placement.h"

namespace migrx {

// Control thread, apart from the thread it makes.
class GuestRefill final : public MemoryRefill {
 public:
  // Both must outlive it.
  GuestRefill(GuestBlocks& guest, const Placement& placement, std::string group)
      : guest_(guest), placement_(placement), group_(std::move(group)) {}
  ~GuestRefill() override { stop(); }
  GuestRefill(const GuestRefill&) = delete;
  GuestRefill& operator=(const GuestRefill&) = delete;

  // Ends what is under way within some milliseconds, and touches the guest no more.
  void stop();

  void begin(bool emptied) override;
  [[nodiscard]] std::optional<std::string> outcome() override;
  [[nodiscard]] uint64_t bytes_done() const noexcept override {
    return done_.load(std::memory_order_relaxed);
  }

 private:
  GuestBlocks& guest_;
  const Placement& placement_;
  const std::string group_;
  std::thread thread_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> over_{false};
  std::atomic<uint64_t> done_{0};
  std::string problem_;  // the thread's until over_
};

}  // namespace migrx

// Asks a job that prepares to end.
#pragma once

#include <atomic>

#include "loader/app/interruption.h"
#include "numa/descriptor.h"

namespace migrx {

// Any thread.
class Cancellation final : public Interruption {
 public:
  Cancellation();  // throws std::system_error when there is no descriptor left
  void ask() noexcept;
  [[nodiscard]] bool pending() const override { return asked_.load(std::memory_order_acquire); }
  [[nodiscard]] int fd() const noexcept override { return event_.get(); }

 private:
  Descriptor event_;  // eventfd
  std::atomic<bool> asked_{false};
};

}  // namespace migrx

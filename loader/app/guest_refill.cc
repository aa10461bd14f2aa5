#include "loader/app/guest_refill.h"

#include <system_error>

namespace migrx {

void GuestRefill::stop() {
  stop_.store(true, std::memory_order_relaxed);
  if (thread_.joinable()) thread_.join();
}

void GuestRefill::begin(bool emptied) {
  try {
    thread_ = std::thread([this, emptied] {
      try {
        problem_ = guest_.take_again(placement_, group_, emptied, [this](uint64_t done) {
          done_.store(done, std::memory_order_relaxed);
          return !stop_.load(std::memory_order_relaxed);
        });
      } catch (const std::exception& failure) {
        problem_ = failure.what();
      }
      over_.store(true, std::memory_order_release);  // pairs with outcome()
    });
  } catch (const std::system_error& failure) {
    problem_ = std::string("no thread can be made for it: ") + failure.what();
    over_.store(true, std::memory_order_release);
  }
}

std::optional<std::string> GuestRefill::outcome() {
  if (!over_.load(std::memory_order_acquire)) return std::nullopt;
  return problem_;
}

}  // namespace migrx

// An address that one thread stores and other threads read, seldom.
#pragma once

#include <mutex>
#include <optional>
#include <utility>

#include "dataplane/wire/address.h"

namespace migrx {

// Any thread. 16 bytes are no atomic word everywhere, so there is a lock, held for the copy alone.
class SharedAddress {
 public:
  void set(const std::optional<IpAddress>& address) noexcept {
    const std::lock_guard lock(mutex_);
    address_ = address;
  }
  [[nodiscard]] std::optional<IpAddress> get() const noexcept {
    const std::lock_guard lock(mutex_);
    return address_;
  }
  // Leaves nothing.
  [[nodiscard]] std::optional<IpAddress> take() noexcept {
    const std::lock_guard lock(mutex_);
    return std::exchange(address_, std::nullopt);
  }

 private:
  mutable std::mutex mutex_;
  std::optional<IpAddress> address_;
};

}  // namespace migrx

// The number of an epoch.
#pragma once

#include <compare>
#include <cstdint>

namespace migrx {

// Epoch k lies before the main channel's k-th marker and the k-th SYNC of each multifd channel, both counted
// from 0 (flush_barrier.h). A type of its own, so that an epoch cannot stand where a channel is meant, nor a
// count of epochs or a packet number where an epoch is.
class Epoch {
 public:
  constexpr Epoch() noexcept = default;
  constexpr explicit Epoch(uint64_t number) noexcept : number_(number) {}
  [[nodiscard]] constexpr uint64_t number() const noexcept { return number_; }
  [[nodiscard]] constexpr Epoch next() const noexcept { return Epoch{number_ + 1}; }
  friend constexpr auto operator<=>(Epoch, Epoch) = default;

 private:
  uint64_t number_ = 0;
};

}  // namespace migrx

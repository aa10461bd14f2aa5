// The id of a multifd channel.
#pragma once

#include <cstdint>

namespace migrx {

// As the channel's init packet says it: 0 to multifd-channels - 1 (QEMU migration/multifd.c, MultiFDInit_t).
// A type of its own: workers, epochs and channels in their order of connecting have numbers too, and none of
// them names a channel.
class MultifdId {
 public:
  constexpr explicit MultifdId(uint32_t number) noexcept : number_(number) {}
  [[nodiscard]] constexpr uint32_t number() const noexcept { return number_; }
  friend constexpr bool operator==(MultifdId, MultifdId) = default;

 private:
  uint32_t number_;
};

}  // namespace migrx

// Strong types for the few integers that everything else passes around. Mixing them does not compile.
#pragma once

#include <compare>
#include <cstdint>

namespace migrx {

// A number with a meaning. Construction is explicit; there is no arithmetic between kinds.
template <class Tag, class Rep>
class StrongId {
 public:
  using rep = Rep;
  constexpr StrongId() noexcept = default;
  constexpr explicit StrongId(Rep value) noexcept : value_(value) {}
  [[nodiscard]] constexpr Rep value() const noexcept { return value_; }
  friend constexpr auto operator<=>(StrongId, StrongId) noexcept = default;

 private:
  Rep value_{};
};

// hwloc's and Linux's numbers (logical = OS index): what taskset, numactl and QEMU's host-nodes take.
using NodeId = StrongId<struct NodeIdTag, int32_t>;
using CpuId = StrongId<struct CpuIdTag, int32_t>;
inline constexpr NodeId kAnyNode{-1};

}  // namespace migrx

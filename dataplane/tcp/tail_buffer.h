// A buffer in which small segments are put together when packet buffers are short. Read connection.h first.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>

#include "dataplane/handoff/handoff.h"

namespace migrx {

// One packet buffer with in-order bytes that the loader has not been given yet; what comes next is copied
// behind them while there is room. Owned by one connection. Nothing allocates.
class TailBuffer {
 public:
  [[nodiscard]] bool empty() const noexcept { return slice_.buffer == nullptr; }
  // Bytes that append() still takes; 0 when empty.
  [[nodiscard]] uint32_t room() const noexcept { return room_; }

  // Moves the slice's bytes to `begin`, which is in the same buffer and not behind them. The `room` bytes
  // that follow them then belong to this tail alone. Precondition: empty().
  void open(const Slice& slice, const std::byte* begin, uint32_t room) noexcept {
    if (begin != slice.data) std::memmove(const_cast<std::byte*>(begin), slice.data, slice.length);
    slice_ = slice;
    slice_.data = begin;
    room_ = room;
  }
  // Copies as much as there is room for, from the first byte; returns how many.
  [[nodiscard]] uint32_t append(Bytes bytes) noexcept {
    const auto count = static_cast<uint32_t>(std::min<std::size_t>(bytes.size(), room_));
    // Slices are for reading once they are pushed; this one is not.
    std::memcpy(const_cast<std::byte*>(slice_.data) + slice_.length, bytes.data(), count);
    slice_.length += count;
    room_ -= count;
    return count;
  }
  // The slice, to be pushed; empty from here on. Precondition: !empty().
  [[nodiscard]] Slice take() noexcept {
    room_ = 0;
    return std::exchange(slice_, Slice{});
  }

 private:
  Slice slice_;
  uint32_t room_ = 0;
};

}  // namespace migrx

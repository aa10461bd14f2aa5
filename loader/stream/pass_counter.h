// How often a source began anew with a RAM block. It walks each block upwards, and comes back to pages that
// the guest wrote meanwhile (QEMU 10: migration/ram.c, find_dirty_block), so a page that stands below the one
// before it begins a pass.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace migrx {

// One channel's view; its worker only. A channel that gets none of a pass's pages does not see that pass, so
// the session takes the largest count of all its channels.
class PassCounter {
 public:
  // Blocks that are looked at: the first that bring pages. Guests have their RAM in few, and the others tell
  // nothing more.
  static constexpr std::size_t kBlocks = 8;

  // `block`: whatever tells one from another, not null. `offset`: of a page.
  // `slack`: how far below the last one an offset may be without beginning anew, where several threads of the
  // source send. Hot.
  void note(const void* block, uint64_t offset, uint64_t slack = 0) noexcept {
    if (block != places_[at_].block) [[unlikely]]
      if (!find(block)) return;
    Place& place = places_[at_];
    if (offset + slack < place.last) {
      ++place.begun_anew;
      most_ = std::max(most_, place.begun_anew);
      place.last = offset;
    } else {
      place.last = std::max(place.last, offset);
    }
  }
  // Of the block that was begun anew most often; 0 in the first pass.
  [[nodiscard]] uint64_t begun_anew() const noexcept { return most_; }

 private:
  struct Place {
    const void* block = nullptr;
    uint64_t last = 0;
    uint64_t begun_anew = 0;
  };
  // False: there are more blocks than places.
  bool find(const void* block) noexcept {
    for (std::size_t i = 0; i < kBlocks; ++i) {
      if (places_[i].block != nullptr && places_[i].block != block) continue;
      places_[i].block = block;
      at_ = i;
      return true;
    }
    return false;
  }

  std::array<Place, kBlocks> places_{};
  std::size_t at_ = 0;
  uint64_t most_ = 0;
};

}  // namespace migrx

// The pages that a destination QEMU drops at the switch to postcopy, because the source's guest has written
// to them since they came, or they never came.
//
// All other pages of blocks in files are in memory, and the destination does not know that: it counts what it
// has placed itself. After a broken connection it tells the source which pages it has, and a source that
// believed it would send pages that are there (QEMU migration/postcopy-ram.c: EEXIST ends the recovery). So
// what the destination says is completed here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "loader/ram/page_bitmap.h"
#include "loader/ram/ram_block.h"

namespace migrx {

// Written by main's worker up to the package; constant afterwards.
class DiscardedPages {
 public:
  // One bitmap for each block in a file. Allocates, so that add() need not.
  void prepare(const RamBlockList& blocks);
  // The range lies inside the block. One of a block that is not in a file is counted, and not kept: its pages
  // went through the destination, which knows of them.
  void add(std::string_view idstr, uint64_t first, uint64_t pages) noexcept;

  [[nodiscard]] uint64_t ranges() const noexcept { return ranges_; }
  [[nodiscard]] uint64_t pages() const noexcept { return pages_; }
  // Pages that are in memory although the destination does not know it: of the eight pages from 8 * index on,
  // one bit each, the lowest first. 0 for a block that is not in a file.
  [[nodiscard]] uint8_t kept(std::string_view idstr, uint64_t index) const noexcept;

 private:
  std::unordered_map<std::string, std::unique_ptr<PageBitmap>> blocks_;
  std::unordered_map<std::string_view, PageBitmap*> by_name_;  // the names are those of blocks_
  uint64_t ranges_ = 0;
  uint64_t pages_ = 0;
};

}  // namespace migrx

// The guest's RAM blocks as this receiver holds them (QEMU: RAMBlock). The block list of the stream
// must fit them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "dataplane/handoff/byte_order.h"
#include "loader/ram/page_bitmap.h"
#include "numa/ids.h"

namespace migrx {

// x86 target page. `configuration/target-page-bits` other than 12 is refused.
inline constexpr uint32_t kPageBits = 12;
inline constexpr uint32_t kPageBytes = 1U << kPageBits;
inline constexpr std::size_t kIdstrMax = 255;

// Where the pages of a block go at present: the one seam between parsers and memory. Ordinary migration
// writes to guest RAM and marks `written`; a block that QEMU must be sent marks pages to forward; COLO state
// writes to the cache and marks the checkpoint's pages. The session switches it between epochs, so a page
// write has no branch.
struct PageTarget {
  std::byte* base = nullptr;       // page i lies at base + i * kPageBytes
  PageBitmap* bits = nullptr;      // set after each page written
  bool untouched_is_zero = false;  // a page never written reads as zeros: a zero page need not touch it
  PageBitmap* taken = nullptr;     // what was taken out of `bits`; nullptr: bits are not taken

  // A zero page may be left alone: these bytes have been zero since before the first page came.
  [[nodiscard]] bool still_zero(uint64_t page) const noexcept {
    // In this order: take_into() adds to `taken` before it clears.
    return untouched_is_zero && !bits->test(page) && (taken == nullptr || !taken->test(page));
  }
};

// Set up by one thread before loading starts; afterwards the names and sizes are constant and
// workers write pages.
class RamBlock {
 public:
  RamBlock(std::string idstr, std::byte* host, uint64_t used_length, bool file_backed, bool fresh,
           NodeId node)
      : idstr_(std::move(idstr)),
        host_(host),
        used_length_(used_length),
        file_backed_(file_backed),
        fresh_(fresh),
        node_(node),
        written_(std::make_unique<PageBitmap>(used_length / kPageBytes)),
        target_{host, written_.get(), fresh, nullptr} {}

  [[nodiscard]] const std::string& idstr() const noexcept { return idstr_; }
  [[nodiscard]] std::byte* host() const noexcept { return host_; }
  [[nodiscard]] uint64_t used_length() const noexcept { return used_length_; }
  [[nodiscard]] uint64_t pages() const noexcept { return used_length_ / kPageBytes; }
  // Named by --ram: a file that a destination QEMU maps too. Otherwise private memory of this process.
  [[nodiscard]] bool file_backed() const noexcept { return file_backed_; }
  // Read as zeros before the first page was loaded.
  [[nodiscard]] bool fresh() const noexcept { return fresh_; }
  [[nodiscard]] NodeId node() const noexcept { return node_; }
  // Pages whose bytes came from the stream (a zero page that was skipped is not among them).
  [[nodiscard]] PageBitmap& written() const noexcept { return *written_; }

  // For a sender that passes pages on while others are loaded: from now on written() marks the pages that are
  // new since the marks were last taken into the bitmap returned. Before the first page.
  PageBitmap& split_written() {
    taken_ = std::make_unique<PageBitmap>(pages());
    return *taken_;
  }
  // Distinct pages written, taken or not.
  [[nodiscard]] uint64_t pages_written() const noexcept {
    return taken_ == nullptr ? written_->count() : written_->count_with(*taken_);
  }

  [[nodiscard]] const PageTarget& target() const noexcept { return target_; }
  void set_target(const PageTarget& target) noexcept { target_ = target; }

  // offset is that of a whole page inside used_length (QEMU only tests the first byte; we test the
  // last as well).
  [[nodiscard]] bool contains_page(uint64_t offset) const noexcept {
    return (offset & (kPageBytes - 1)) == 0 && offset < used_length_;
  }

 private:
  std::string idstr_;
  std::byte* host_;
  uint64_t used_length_;
  bool file_backed_;
  bool fresh_;
  NodeId node_;
  std::unique_ptr<PageBitmap> written_;
  std::unique_ptr<PageBitmap> taken_;
  PageTarget target_;
};

// The blocks of one session, in the order of the stream's list once that has come. Lookup is by name; sources
// repeat the same name for millions of records, so callers keep the last answer.
class RamBlockList {
 public:
  RamBlock& add(std::unique_ptr<RamBlock> block) {
    blocks_.push_back(std::move(block));
    by_name_.emplace(blocks_.back()->idstr(), blocks_.back().get());
    return *blocks_.back();
  }
  // Hot: no allocation, and as quick with thousands of blocks as with one.
  [[nodiscard]] RamBlock* find(std::string_view idstr) const noexcept {
    const auto found = by_name_.find(idstr);
    return found == by_name_.end() ? nullptr : found->second;
  }
  [[nodiscard]] std::size_t size() const noexcept { return blocks_.size(); }
  [[nodiscard]] RamBlock& operator[](std::size_t i) const noexcept { return *blocks_[i]; }

 private:
  std::vector<std::unique_ptr<RamBlock>> blocks_;
  std::unordered_map<std::string_view, RamBlock*> by_name_;  // the names are the blocks' own
};

}  // namespace migrx

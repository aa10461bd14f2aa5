// The COLO cache: a private copy of every RAM block (QEMU migration/ram.c,
// colo_init_ram_cache and colo_flush_ram_cache).
//
//   initial migration   page ──▶ RAM, marked;    at each epoch's end: marked pages RAM ──▶ cache
//   COLO                page ──▶ cache, marked;  at a checkpoint:     marked pages cache ──▶ RAM
//
// QEMU writes each page of the initial migration to RAM and cache one by one. Here a page write does not know
// of COLO at all: both stages are targets of the block (PageTarget), and the copying follows the marks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dataplane/handoff/counter.h"
#include "loader/ram/page_writer.h"
#include "loader/ram/ram_block.h"

namespace migrx {

class PrivateMemory;

class ColoRamCache {
 public:
  // Copied per slice at most: 2 MiB, about 0.3 ms; and bitmap words looked at, a gibibyte of guest RAM.
  static constexpr uint64_t kPagesPerSlice = 512;
  static constexpr uint64_t kWordsPerSlice = 4096;

  explicit ColoRamCache(const PageKernels& kernels);
  ~ColoRamCache();

  // Makes the cache of one block and faults all of it in: what is promised is there. Empty: done, or it was
  // there already.
  [[nodiscard]] std::string add(const RamBlock& block);

  // ---- Main's worker, or before it starts ----
  // Pages of all blocks go to RAM, or to the cache. Marks are kept: call only when a copy has finished.
  void target_ram(RamBlockList& blocks) noexcept;
  void target_cache(RamBlockList& blocks) noexcept;
  // One slice of moving all marked pages. True: none is left. Pages moved are marked in RamBlock::written().
  [[nodiscard]] bool copy_to_cache() noexcept { return move_some(/*to_ram=*/false); }
  [[nodiscard]] bool flush_to_ram() noexcept { return move_some(/*to_ram=*/true); }

  // ---- Any thread ----
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_.read(); }
  Counter pages_to_cache;
  Counter pages_to_ram;

 private:
  struct Entry {
    const RamBlock* block = nullptr;
    std::unique_ptr<PrivateMemory> memory;
    std::unique_ptr<PageBitmap> marks;
  };
  bool move_some(bool to_ram) noexcept;
  [[nodiscard]] const Entry* entry_of(const RamBlock& block) const noexcept;

  std::vector<Entry> entries_;
  PageWriter writer_;
  Counter bytes_;
  std::size_t at_ = 0;      // of the copy under way: entry
  uint64_t next_word_ = 0;  // and word of its marks
};

}  // namespace migrx

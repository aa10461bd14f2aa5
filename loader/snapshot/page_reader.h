// Reads the pages of a mapped-ram snapshot: every block has a bitmap and a region of the file in which page i
// lies at pages_offset + i * page size (QEMU migration/ram.c, parse_ramblock_mapped_ram and
// read_ramblock_mapped_ram). Pages go from the file straight into guest RAM, by several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loader/main/main_events.h"
#include "loader/ram/kernels/page_kernels.h"
#include "loader/ram/ram_block.h"
#include "numa/ids.h"

namespace migrx {

struct PageReaderCounters {
  std::atomic<uint64_t> pages_read{0};
  std::atomic<uint64_t> zero_pages{0};            // not in the bitmap
  std::atomic<uint64_t> zero_pages_untouched{0};  // of those, memory that still was zero
  std::atomic<uint64_t> reads{0};                 // system calls
};

class PageReader {
 public:
  // fd: of the file, open for reading; pages are read past the page cache (O_DIRECT) where its file system
  // can do that. name: for messages. threads: at least 1, one pinned to each of `cpus` as far as these go. fd
  // and kernels must outlive the reader.
  PageReader(int fd, std::string name, uint32_t threads, std::vector<CpuId> cpus, const PageKernels& kernels);
  ~PageReader();
  PageReader(const PageReader&) = delete;
  PageReader& operator=(const PageReader&) = delete;

  // Loads every block of the list; entries have passed the parser's checks of their header. Blocks; returns
  // when all threads are done. `turn` is called by this thread at least every 20 ms; when it returns true,
  // loading ends early, after at most one read per thread, without an error.
  [[nodiscard]] StreamError load(const RamBlockList& blocks, std::span<const BlockEntry> entries,
                                 const std::function<bool()>& turn);

  [[nodiscard]] uint64_t pages_done() const noexcept {
    return counters_.pages_read.load(std::memory_order_relaxed) +
           counters_.zero_pages.load(std::memory_order_relaxed);
  }
  // Of all blocks; 0 before load().
  [[nodiscard]] uint64_t pages_total() const noexcept { return pages_total_; }
  [[nodiscard]] const PageReaderCounters& counters() const noexcept { return counters_; }
  [[nodiscard]] bool direct_io() const noexcept { return direct_fd_ >= 0 && !direct_refused_.load(); }
  [[nodiscard]] uint32_t threads() const noexcept { return threads_; }

 private:
  struct Region;
  void work(const std::vector<Region>& regions, std::atomic<uint64_t>& next, StreamError& error);
  [[nodiscard]] bool stopped() const noexcept {
    return stop_.load(std::memory_order_relaxed) || failed_.load(std::memory_order_relaxed);
  }
  StreamError load_chunk(const Region& region, uint64_t first, uint64_t count);
  StreamError read_run(const Region& region, uint64_t first, uint64_t count);

  const int fd_;
  const std::string name_;
  const uint32_t threads_;
  const std::vector<CpuId> cpus_;
  const PageKernels& kernels_;
  int direct_fd_ = -1;                       // -1: the file system has no O_DIRECT
  std::atomic<bool> direct_refused_{false};  // it said EINVAL later
  std::atomic<bool> failed_{false};
  std::atomic<bool> stop_{false};
  uint64_t pages_total_ = 0;
  PageReaderCounters counters_;
};

}  // namespace migrx

#include "loader/snapshot/page_reader.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

namespace migrx {
namespace {

// Pages that one thread takes at a time: 8 MiB, many reads of a disk, little compared with a guest.
constexpr uint64_t kChunkPages = 2048;
// Bytes of one read: a slow disk must not keep a signal waiting.
constexpr uint64_t kReadBytesMax = 1 << 20;
// Pages cleared before a thread looks whether it shall stop.
constexpr uint64_t kClearPages = 256;
constexpr auto kTurnPause = std::chrono::milliseconds(20);

StreamError io_error(const char* field, uint64_t offset, const std::string& name) {
  StreamError error = make_error(ErrorClass::io, offset, field, "%s: %s", name.c_str(), std::strerror(errno));
  error.channel = ChannelName::main();
  return error;
}

}  // namespace

struct PageReader::Region {
  const RamBlock* block = nullptr;
  uint64_t pages_offset = 0;
  std::vector<uint64_t> bitmap;  // bit i: page i is in the file; words as a little-endian source wrote them
  uint64_t chunks = 0;

  [[nodiscard]] bool present(uint64_t page) const noexcept {
    return (bitmap[page / 64] >> (page % 64) & 1) != 0;
  }
};

PageReader::PageReader(int fd, std::string name, uint32_t threads, std::vector<CpuId> cpus,
                       const PageKernels& kernels)
    : fd_(fd),
      name_(std::move(name)),
      threads_(std::max(1U, threads)),
      cpus_(std::move(cpus)),
      kernels_(kernels),
      // The same file, whatever its path leads to by now.
      direct_fd_(::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)) {}

PageReader::~PageReader() {
  if (direct_fd_ >= 0) ::close(direct_fd_);
}

StreamError PageReader::load(const RamBlockList& blocks, std::span<const BlockEntry> entries,
                             const std::function<bool()>& turn) {
  const off_t end = ::lseek(fd_, 0, SEEK_END);
  if (end < 0) return io_error("mapped-ram: file", 0, name_);
  const auto file_bytes = static_cast<uint64_t>(end);
  std::vector<Region> regions;
  for (const BlockEntry& entry : entries) {
    const MappedRamHeader& header = *entry.mapped_ram;
    Region region;
    region.block = blocks.find(entry.idstr);
    region.pages_offset = header.pages_offset;
    const uint64_t pages = region.block->pages();
    region.bitmap.resize((pages + 63) / 64);
    region.chunks = (pages + kChunkPages - 1) / kChunkPages;
    const uint64_t bytes = region.bitmap.size() * 8;
    if (header.bitmap_offset > file_bytes || bytes > file_bytes - header.bitmap_offset) {
      StreamError error =
          make_error_values(ErrorClass::truncated, header.bitmap_offset, "mapped-ram: bitmap",
                            header.bitmap_offset + bytes, file_bytes, "the file ends inside it");
      error.channel = ChannelName::main();
      return error;
    }
    if (::pread(fd_, region.bitmap.data(), bytes, static_cast<off_t>(header.bitmap_offset)) !=
        static_cast<ssize_t>(bytes))
      return io_error("mapped-ram: bitmap", header.bitmap_offset, name_);
    pages_total_ += pages;
    regions.push_back(std::move(region));
  }
  std::atomic<uint64_t> next{0};
  std::vector<StreamError> errors(threads_);
  std::mutex mutex;
  std::condition_variable done;
  uint32_t working = threads_;  // under the mutex
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < threads_; ++i)
    threads.emplace_back([&, i] {
      if (i < cpus_.size()) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(static_cast<std::size_t>(cpus_[i].value()), &set);
        ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
      }
      work(regions, next, errors[i]);
      const std::lock_guard lock(mutex);
      if (--working == 0) done.notify_one();
    });
  for (std::unique_lock lock(mutex); !done.wait_for(lock, kTurnPause, [&] { return working == 0; });) {
    lock.unlock();
    if (turn()) stop_.store(true, std::memory_order_relaxed);
    lock.lock();
  }
  for (std::thread& thread : threads) thread.join();
  for (const StreamError& error : errors)
    if (error) return error;
  return {};
}

// Chunks of all regions are numbered through; each thread takes the next.
void PageReader::work(const std::vector<Region>& regions, std::atomic<uint64_t>& next, StreamError& error) {
  while (!stopped()) {
    uint64_t chunk = next.fetch_add(1, std::memory_order_relaxed);
    auto region = regions.begin();
    while (region != regions.end() && chunk >= region->chunks) chunk -= (region++)->chunks;
    if (region == regions.end()) return;
    const uint64_t first = chunk * kChunkPages;
    error = load_chunk(*region, first, std::min(kChunkPages, region->block->pages() - first));
    if (error) failed_.store(true, std::memory_order_relaxed);
  }
}

StreamError PageReader::load_chunk(const Region& region, uint64_t first, uint64_t count) {
  const PageTarget& target = region.block->target();
  const uint64_t end = first + count;
  for (uint64_t at = first; at < end && !stopped();) {
    const bool present = region.present(at);
    const uint64_t limit = std::min(end, present ? end : at + kClearPages);
    uint64_t run_end = at + 1;
    while (run_end < limit && region.present(run_end) == present) ++run_end;
    const uint64_t pages = run_end - at;
    if (present) {
      if (StreamError error = read_run(region, at, pages)) return error;
      if (stopped()) return {};
    } else {
      counters_.zero_pages.fetch_add(pages, std::memory_order_relaxed);
      if (target.untouched_is_zero) {
        counters_.zero_pages_untouched.fetch_add(pages, std::memory_order_relaxed);
        at = run_end;
        continue;
      }
      kernels_.clear(target.base + at * kPageBytes, pages * kPageBytes);
      kernels_.fence();
    }
    target.bits->set_range(at, pages);
    at = run_end;
  }
  return {};
}

StreamError PageReader::read_run(const Region& region, uint64_t first, uint64_t count) {
  uint64_t position = region.pages_offset + first * kPageBytes;
  std::byte* into = region.block->target().base + first * kPageBytes;
  uint64_t counted = 0;  // pages of this run
  for (uint64_t left = count * kPageBytes; left > 0 && !stopped();) {
    const bool direct = direct_io();
    const ssize_t n =
        ::pread(direct ? direct_fd_ : fd_, into, std::min(left, kReadBytesMax), static_cast<off_t>(position));
    counters_.reads.fetch_add(1, std::memory_order_relaxed);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && direct && errno == EINVAL) {
      direct_refused_.store(
          true);  // alignment that this file system does not take: read through the page cache
      continue;
    }
    if (n < 0) return io_error("mapped-ram: pages", position, name_);
    if (n == 0) {
      StreamError error = make_error(ErrorClass::truncated, position, "mapped-ram: pages",
                                     "the file ends before a page of block %s that its bitmap names",
                                     region.block->idstr().c_str());
      error.channel = ChannelName::main();
      return error;
    }
    into += n;
    position += static_cast<uint64_t>(n);
    left -= static_cast<uint64_t>(n);
    const uint64_t whole = (count * kPageBytes - left) / kPageBytes;
    counters_.pages_read.fetch_add(whole - counted, std::memory_order_relaxed);
    counted = whole;
  }
  return {};
}

}  // namespace migrx

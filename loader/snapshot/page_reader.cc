#include "loader/snapshot/page_reader.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

namespace migrx {
namespace {

// Pages that one thread takes at a time: 8 MiB, many reads of a disk, little compared with a guest.
constexpr uint64_t kChunkPages = 2048;

StreamError io_error(const char* field, uint64_t offset, const std::string& path) {
  StreamError error = make_error(ErrorClass::io, offset, field, "%s: %s", path.c_str(), std::strerror(errno));
  error.channel.index = ChannelName::kMain;
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

PageReader::PageReader(std::string path, uint32_t threads, std::vector<CpuId> cpus,
                       const PageKernels& kernels)
    : path_(std::move(path)), threads_(std::max(1U, threads)), cpus_(std::move(cpus)), kernels_(kernels) {}

PageReader::~PageReader() {
  if (fd_ >= 0) ::close(fd_);
  if (direct_fd_ >= 0) ::close(direct_fd_);
}

std::string PageReader::open() {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) return path_ + ": " + std::strerror(errno);
  direct_fd_ = ::open(path_.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  return {};
}

StreamError PageReader::load(const RamBlockList& blocks, std::span<const BlockEntry> entries,
                             const std::atomic<bool>& stop) {
  const off_t end = ::lseek(fd_, 0, SEEK_END);
  if (end < 0) return io_error("mapped-ram: file", 0, path_);
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
      error.channel.index = ChannelName::kMain;
      return error;
    }
    if (::pread(fd_, region.bitmap.data(), bytes, static_cast<off_t>(header.bitmap_offset)) !=
        static_cast<ssize_t>(bytes))
      return io_error("mapped-ram: bitmap", header.bitmap_offset, path_);
    regions.push_back(std::move(region));
  }
  std::atomic<uint64_t> next{0};
  if (threads_ == 1 && cpus_.empty()) {  // this thread has nothing else to do
    StreamError error;
    work(regions, next, stop, error);
    return error;
  }
  std::vector<StreamError> errors(threads_);
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < threads_; ++i)
    threads.emplace_back([&, i] {
      if (i < cpus_.size()) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(static_cast<std::size_t>(cpus_[i].value()), &set);
        ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
      }
      work(regions, next, stop, errors[i]);
    });
  for (std::thread& thread : threads) thread.join();
  for (const StreamError& error : errors)
    if (error) return error;
  return {};
}

// Chunks of all regions are numbered through; each thread takes the next.
void PageReader::work(const std::vector<Region>& regions, std::atomic<uint64_t>& next,
                      const std::atomic<bool>& stop, StreamError& error) {
  while (!stop.load(std::memory_order_relaxed) && !failed_.load(std::memory_order_relaxed)) {
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
  for (uint64_t at = first; at < end;) {
    const bool present = region.present(at);
    uint64_t run_end = at + 1;
    while (run_end < end && region.present(run_end) == present) ++run_end;
    const uint64_t pages = run_end - at;
    if (present) {
      if (StreamError error = read_run(region, at, pages)) return error;
      counters_.pages_read.fetch_add(pages, std::memory_order_relaxed);
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
  for (uint64_t left = count * kPageBytes; left > 0;) {
    const bool direct = direct_io();
    const ssize_t n = ::pread(direct ? direct_fd_ : fd_, into, left, static_cast<off_t>(position));
    counters_.reads.fetch_add(1, std::memory_order_relaxed);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && direct && errno == EINVAL) {
      direct_refused_.store(
          true);  // alignment that this file system does not take: read through the page cache
      continue;
    }
    if (n < 0) return io_error("mapped-ram: pages", position, path_);
    if (n == 0) {
      StreamError error = make_error(ErrorClass::truncated, position, "mapped-ram: pages",
                                     "the file ends before a page of block %s that its bitmap names",
                                     region.block->idstr().c_str());
      error.channel.index = ChannelName::kMain;
      return error;
    }
    into += n;
    position += static_cast<uint64_t>(n);
    left -= static_cast<uint64_t>(n);
  }
  return {};
}

}  // namespace migrx

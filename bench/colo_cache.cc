// What a checkpoint costs a COLO secondary, per gibibyte of guest RAM: flushing marked pages, against looking
// for a running guest's own writes by comparing or copying everything (docs/colo.md). And what an ordinary
// migration pays for being able to do COLO: nothing, which write_pages shows.
#include <benchmark/benchmark.h>

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "loader/colo/ram_cache.h"

namespace migrx {
namespace {

constexpr std::size_t kGuestBytes = 256 << 20;  // far beyond the caches of a core

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "wrong result: %s\n", what);
  std::exit(1);
}

class Guest {
 public:
  Guest()
      : ram_(map()),
        blocks_(),
        block_(blocks_.add(
            std::make_unique<RamBlock>("mem", ram_, kGuestBytes, /*file_backed=*/true, true, kAnyNode))),
        cache_(kernels()) {
    require(cache_.add(block_).empty(), "memory for the cache");
    std::memset(ram_, 7, kGuestBytes);
    cache_.target_ram(blocks_);
    block_.target().bits->set_range(0, block_.pages());
    while (!cache_.copy_to_cache()) {
    }
    cache_.target_cache(blocks_);
    require(std::memcmp(ram_, cache(), kGuestBytes) == 0, "the copy");
  }
  ~Guest() { ::munmap(ram_, kGuestBytes); }
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  static const PageKernels& kernels() {
    std::string problem;
    const PageKernels* const found = select_page_kernels(problem);
    require(found != nullptr, "page kernels");
    return *found;
  }
  [[nodiscard]] std::byte* ram() const noexcept { return ram_; }
  [[nodiscard]] std::byte* cache() const noexcept { return block_.target().base; }
  [[nodiscard]] PageBitmap& marks() const noexcept { return *block_.target().bits; }
  [[nodiscard]] RamBlock& block() noexcept { return block_; }
  // As if there were no COLO: pages go to guest RAM.
  void target_ram() { block_.set_target({ram_, &block_.written(), false, nullptr}); }
  [[nodiscard]] ColoRamCache& colo() noexcept { return cache_; }

 private:
  static std::byte* map() {
    void* const address =
        ::mmap(nullptr, kGuestBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(address != MAP_FAILED, "memory for the guest");
    return static_cast<std::byte*>(address);
  }
  std::byte* ram_;
  RamBlockList blocks_;
  RamBlock& block_;
  ColoRamCache cache_;
};

void per_guest(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(kGuestBytes));
}

// One page in `every` was sent by the primary since the checkpoint before.
void flush_marked(benchmark::State& state) {
  Guest guest;
  const auto every = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) {
    for (uint64_t page = 0; page < kGuestBytes / kPageBytes; page += every) guest.marks().set(page);
    while (!guest.colo().flush_to_ram()) {
    }
  }
  require(guest.marks().count() == 0, "the flush");
  per_guest(state);
}

void compare_all(benchmark::State& state) {
  Guest guest;
  uint64_t differ = 0;
  for (auto _ : state)
    for (std::size_t at = 0; at < kGuestBytes; at += kPageBytes)
      differ += std::memcmp(guest.ram() + at, guest.cache() + at, kPageBytes) != 0 ? 1U : 0U;
  require(differ == 0, "the comparison");
  per_guest(state);
}

void copy_all(benchmark::State& state) {
  Guest guest;
  const PageKernels& kernels = Guest::kernels();
  PageWriter writer(kernels);
  for (auto _ : state) {
    for (std::size_t at = 0; at < kGuestBytes; at += kPageBytes)
      writer.copy_page(guest.ram() + at, guest.cache() + at);
    writer.fence();
  }
  per_guest(state);
}

// Where the pages of a block go, which is all that an ordinary migration has of COLO: nowhere but a pointer
// and a bitmap in registers; the block's target as an ordinary migration has it, asked for page by page as
// RamSection does; the same with COLO's cache behind it.
enum class Way { plain_pointer, ordinary, colo };

void write_pages(benchmark::State& state, Way way) {
  Guest guest;
  RamBlock& block = guest.block();
  if (way != Way::colo) guest.target_ram();
  std::vector<std::byte> payload(std::size_t{64} * kPageBytes, std::byte{9});  // stays in the first caches
  PageWriter writer(Guest::kernels());
  std::byte* const base = block.target().base;
  PageBitmap* const bits = block.target().bits;
  for (auto _ : state) {
    for (uint64_t page = 0; page < kGuestBytes / kPageBytes; ++page) {
      const Bytes bytes{payload.data() + page % 64 * kPageBytes, kPageBytes};
      if (way == Way::plain_pointer) {
        writer.seek(base + page * kPageBytes);
        writer.write(bytes);
        bits->set(page);
      } else {
        const PageTarget& target = block.target();
        writer.seek(target.base + page * kPageBytes);
        writer.write(bytes);
        target.bits->set(page);
      }
      benchmark::ClobberMemory();  // the target is asked for again, as by a parser between two records
    }
    writer.fence();
  }
  require(block.target().bits->count() == kGuestBytes / kPageBytes, "all pages are marked");
  require(std::memcmp(way == Way::colo ? guest.cache() : guest.ram(), payload.data(), payload.size()) == 0,
          "the pages");
  per_guest(state);
}

BENCHMARK_CAPTURE(write_pages, plain_pointer, Way::plain_pointer)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(write_pages, ordinary, Way::ordinary)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(write_pages, colo, Way::colo)->Unit(benchmark::kMillisecond);
BENCHMARK(flush_marked)->Arg(1)->Arg(20)->Arg(100)->Unit(benchmark::kMillisecond);
BENCHMARK(compare_all)->Unit(benchmark::kMillisecond);
BENCHMARK(copy_all)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace migrx

BENCHMARK_MAIN();

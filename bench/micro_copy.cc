// The copy of packet buffers to guest memory as the loader meets them: in the order of the pool, shuffled,
// and in runs of several channels; from a pool that a last-level cache holds and from one that it does not.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "bench/micro.h"
#include "bench/pipeline/memory.h"
#include "dataplane/handoff/handoff.h"
#include "loader/ram/page_writer.h"

namespace migrx::bench {
namespace {

constexpr std::size_t kGuestBytes = 256 << 20;
constexpr std::size_t kHeadroom = 256 + 66;  // mbuf, headroom's first lines, and the frame's headers
constexpr uint32_t kRun = 16;                // buffers of one channel that come home side by side

enum class Order : uint8_t { pool, runs, shuffled };

// Slices of a pool of packet buffers that hold random bytes. Zeros, or one value everywhere, are written
// twice as fast by some memory controllers, and no guest sends them as pages.
class Pool {
 public:
  Pool(std::size_t bytes, std::size_t slice, Order order)
      : stride_(((kHeadroom + std::max<std::size_t>(slice, 1726) + 63) / 64 | 1) * 64),
        memory_(bytes / stride_ * stride_) {
    std::mt19937_64 random(1);
    for (std::size_t at = 0; at + 8 <= memory_.size(); at += 8) {
      const uint64_t word = random();
      std::memcpy(memory_.data() + at, &word, 8);
    }
    const std::size_t buffers = bytes / stride_;
    const std::size_t run = order == Order::runs ? kRun : 1;
    std::vector<std::size_t> first;
    for (std::size_t i = 0; i + run <= buffers; i += run) first.push_back(i);
    if (order != Order::pool) std::shuffle(first.begin(), first.end(), random);
    for (const std::size_t begin : first)
      for (std::size_t i = begin; i < begin + run; ++i)
        slices.push_back(
            {memory_.data() + i * stride_ + kHeadroom, nullptr, static_cast<uint32_t>(slice), {}});
  }
  std::vector<Slice> slices;

 private:
  std::size_t stride_;
  HugeRegion memory_;
};

// ahead: how many slices further on lines are fetched (prefetch_slice()); 0: none.
void copy_order(benchmark::State& state, const PageKernels* kernels, Order order, uint32_t ahead) {
  const auto slice = static_cast<std::size_t>(state.range(0));
  const Pool pool(static_cast<std::size_t>(state.range(1)) << 20, slice, order);
  const HugeRegion guest(kGuestBytes);
  const std::vector<Slice>& slices = pool.slices;
  const std::size_t count = kGuestBytes / slice;
  const auto run = [&] {
    PageWriter writer(*kernels);
    writer.seek(guest.data());
    for (std::size_t i = 0, at = 0; i < count; ++i, at = at + 1 == slices.size() ? 0 : at + 1) {
      if (ahead > 0) prefetch_slice(slices[(at + ahead) % slices.size()]);
      writer.write({slices[at].data, slices[at].length});
    }
    writer.fence();
  };
  run();
  for (std::size_t i = 0; i < count; i += 97)
    require(std::memcmp(guest.data() + i * slice, slices[i % slices.size()].data, slice) == 0,
            "copy in order");
  for (auto _ : state) run();
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(count * slice));
}

}  // namespace

void register_copy_benchmarks() {
  const PageKernels* const kernels = supported_page_kernels().back();
  constexpr std::pair<const char*, Order> kOrders[] = {
      {"pool", Order::pool}, {"runs", Order::runs}, {"shuffled", Order::shuffled}};
  for (const auto& [name, order] : kOrders)
    for (const uint32_t ahead : {0U, 1U, 2U})
      benchmark::RegisterBenchmark(
          ("copy_order/" + std::string(name) + "/ahead:" + std::to_string(ahead)).c_str(), copy_order,
          kernels, order, ahead)
          ->ArgNames({"slice", "pool_mib"})
          ->ArgsProduct({{1448, 4044, 8948}, {1, 16, 128}})
          ->Unit(benchmark::kMillisecond);
}

}  // namespace migrx::bench

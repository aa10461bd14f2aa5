// bench/dma_offload: what the core that submits pays when a DMA engine copies slices to guest pages, beside
// what the page writer pays for copying them itself.
//
//   build/bench/dma_offload [--cpu N --device-cpu M] [--repetitions N] [--guest MIB] [--json FILE]
//
// The engine is DPDK's dma_skeleton, which needs no hardware: a thread that copies. What it takes is no
// figure for an engine; what it leaves to the other core (a descriptor per slice, a doorbell per burst,
// looking for completions, keeping packet buffers until then) is of the kind that any rte_dmadev driver
// leaves. Ways:
//
//   writer      PageWriter, the product: full lines past the caches, boundary lines joined
//   dma         one descriptor per slice, wherever it begins and ends
//   dma+joined  one descriptor for each slice's whole lines, boundary lines joined as PageWriter does
//   floor       64-byte descriptors filled in memory, one store per burst as doorbell, one word read
//
// Nobody is at the other end of `floor`, so no engine asks less.
// Cycles (TSC) per slice are of work; waiting for an engine that is behind is counted apart. Every run ends
// with a comparison of every byte.
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bench/dma_device.h"
#include "bench/micro.h"
#include "bench/pipeline/memory.h"
#include "bench/pipeline/stage_timing.h"
#include "dataplane/dpdk/eal.h"
#include "loader/ram/page_writer.h"

namespace migrx::bench {
namespace {

constexpr uint32_t kSlicesPerBurst = 32;
constexpr uint16_t kDescriptors = 1024;
constexpr int kPauses = 64;  // some thousand cycles: several slices' copies, a hundredth of what is under way
constexpr uint32_t kInFrontOfPayload = 256 + 66;  // headroom and headers
constexpr std::size_t kPoolBytes = 16 << 20;
constexpr std::array<uint32_t, 3> kSliceBytes{1448, 4096, 8948};
constexpr std::array<const char*, 4> kWays{"writer", "dma", "dma+joined", "floor"};

struct Options {
  int32_t cpu = -1;
  int32_t device_cpu = -1;
  uint32_t repetitions = 7;
  uint64_t guest_bytes = uint64_t{256} << 20;
  std::string json;
};

// TSC cycles of one run, by what they were for, burst by burst (BurstTimes leaves interruptions out).
struct Cycles {
  // Completions may come one by one.
  explicit Cycles(uint64_t slices)
      : fill(slices / kSlicesPerBurst + 1), doorbell(slices / kSlicesPerBurst + 1), poll(slices) {}
  BurstTimes fill;      // descriptors and boundary lines; with `writer` the copies
  BurstTimes doorbell;  // submitting
  BurstTimes poll;      // asking for completions and giving buffers back, when there were some
  uint64_t wait = 0;    // for an engine that is behind
  uint64_t all = 0;
};

// Packet buffers, every word of which is its own.
class Pool {
 public:
  explicit Pool(uint32_t slice_bytes)
      : slice_(slice_bytes),
        stride_(((kInFrontOfPayload + slice_bytes + 63) / 64 | 1U) * 64),
        memory_(kPoolBytes),
        buffers_(static_cast<uint32_t>(kPoolBytes / stride_)) {
    std::mt19937_64 random(slice_bytes);
    for (std::size_t at = 0; at < memory_.size(); at += 8) {
      const uint64_t word = random();
      std::memcpy(memory_.data() + at, &word, sizeof word);
    }
  }
  [[nodiscard]] uint32_t slice_bytes() const noexcept { return slice_; }
  // The payload of the buffer that bears the i-th slice.
  [[nodiscard]] const std::byte* slice(uint64_t i) const noexcept {
    return memory_.data() + i % buffers_ * stride_ + kInFrontOfPayload;
  }

 private:
  const uint32_t slice_;
  const std::size_t stride_;
  const HugeRegion memory_;
  const uint32_t buffers_;
};

// Buffers that an engine still reads, first in, first out: with the page writer they go back at once.
class UnderWay {
 public:
  void add(const std::byte* buffer) noexcept { ring_[tail_++ % ring_.size()] = buffer; }
  [[nodiscard]] uint32_t count() const noexcept { return static_cast<uint32_t>(tail_ - head_); }
  // The oldest `count` are read no more. What a receiver would do with them is to move their connections'
  // ring heads; here they are added up, so that they are looked at.
  void release(uint32_t count) noexcept {
    for (; count > 0; --count) released_ += reinterpret_cast<uintptr_t>(ring_[head_++ % ring_.size()]);
  }
  [[nodiscard]] uintptr_t released() const noexcept { return released_; }

 private:
  std::array<const std::byte*, 2 * kDescriptors> ring_{};
  uint64_t head_ = 0, tail_ = 0;
  uintptr_t released_ = 0;
};

// `slices` slices from the `first` of the pool on, to consecutive guest memory.
struct Job {
  const Pool& pool;
  std::byte* guest;
  uint64_t first;
  uint64_t slices;
};

Cycles by_writer(const Job& job, const PageKernels& kernels) {
  Cycles cycles(job.slices);
  PageWriter writer(kernels);
  writer.seek(job.guest);
  const uint64_t begin = __rdtsc();
  for (uint64_t i = 0; i < job.slices;) {
    const uint64_t start = __rdtsc();
    const uint64_t end = std::min<uint64_t>(i + kSlicesPerBurst, job.slices);
    const auto count = static_cast<uint32_t>(end - i);
    for (; i < end; ++i) writer.write({job.pool.slice(job.first + i), job.pool.slice_bytes()});
    cycles.fill.add(__rdtsc() - start, count);
  }
  writer.fence();
  cycles.all = __rdtsc() - begin;
  return cycles;
}

// Looks for completions until `room` copies fit.
void make_room(DmaDevice& device, UnderWay& under_way, uint32_t room, Cycles& cycles) {
  for (;;) {
    const uint64_t begin = __rdtsc();
    const uint32_t done = device.completed(kDescriptors);
    under_way.release(done);
    const bool fits = device.room() - under_way.count() >= room;
    const uint64_t asked = __rdtsc();
    if (done > 0) cycles.poll.add(asked - begin, done);
    if (fits) {
      if (done == 0) cycles.wait += asked - begin;
      return;
    }
    // The engine is behind. Asking all the time would bring completions one by one, each with its line.
    for (int i = 0; i < kPauses; ++i) _mm_pause();
    cycles.wait += __rdtsc() - (done > 0 ? asked : begin);
  }
}

Cycles by_dma(const Job& job, DmaDevice& device, const PageKernels* joined) {
  Cycles cycles(job.slices);
  UnderWay under_way;
  LineWriter line;
  line.dst = job.guest;
  const uint32_t bytes = job.pool.slice_bytes();
  const uint64_t begin = __rdtsc();
  for (uint64_t i = 0; i < job.slices;) {
    make_room(device, under_way, kSlicesPerBurst, cycles);
    const uint64_t start = __rdtsc();
    const uint64_t end = std::min<uint64_t>(i + kSlicesPerBurst, job.slices);
    const auto count = static_cast<uint32_t>(end - i);
    for (; i < end; ++i) {
      const std::byte* src = job.pool.slice(job.first + i);
      under_way.add(src);
      if (joined == nullptr) {
        require(device.copy(job.guest + i * bytes, src, bytes), "a free descriptor");
        continue;
      }
      const std::size_t head = line.fill == 0 ? 0 : kLineBytes - line.fill;
      const std::size_t middle = (bytes - head) / kLineBytes * kLineBytes;
      if (head > 0) joined->write(line, src, head);
      require(device.copy(line.dst, src + head, static_cast<uint32_t>(middle)), "a free descriptor");
      line.dst += middle;
      if (head + middle < bytes) joined->write(line, src + head + middle, bytes - head - middle);
    }
    const uint64_t filled = __rdtsc();
    device.submit();
    cycles.fill.add(filled - start, count);
    cycles.doorbell.add(__rdtsc() - filled, count);
  }
  make_room(device, under_way, device.room(), cycles);
  if (joined != nullptr) {
    std::memcpy(line.dst, line.line, line.fill);
    joined->fence();
  }
  cycles.all = __rdtsc() - begin;
  require(!device.failed(), "the engine reports no error");
  return cycles;
}

struct alignas(64) Descriptor {
  uint64_t flags;
  uint64_t completion;
  const std::byte* src;
  std::byte* dst;
  uint64_t bytes;
  std::array<uint64_t, 3> rest;
};
static_assert(sizeof(Descriptor) == 64);

Cycles by_floor(const Job& job) {
  Cycles cycles(job.slices);
  UnderWay under_way;
  std::vector<Descriptor> ring(kDescriptors);
  std::atomic<uint64_t> doorbell{0}, completed{0};
  const uint32_t bytes = job.pool.slice_bytes();
  const uint64_t begin = __rdtsc();
  for (uint64_t i = 0; i < job.slices;) {
    const uint64_t from = i;
    const uint64_t start = __rdtsc();
    const uint64_t end = std::min<uint64_t>(i + kSlicesPerBurst, job.slices);
    const auto count = static_cast<uint32_t>(end - i);
    for (; i < end; ++i) {
      const std::byte* const src = job.pool.slice(job.first + i);
      under_way.add(src);
      ring[i % kDescriptors] = {1, i, src, job.guest + i * bytes, bytes, {}};
    }
    const uint64_t filled = __rdtsc();
    doorbell.store(i, std::memory_order_release);
    const uint64_t rung = __rdtsc();
    cycles.fill.add(filled - start, count);
    cycles.doorbell.add(rung - filled, count);
    // The engine, outside of what is counted.
    for (uint64_t k = from; k < doorbell.load(std::memory_order_acquire); ++k) {
      const Descriptor& descriptor = ring[k % kDescriptors];
      std::memcpy(descriptor.dst, descriptor.src, descriptor.bytes);
    }
    completed.store(i, std::memory_order_release);
    const uint64_t asked = __rdtsc();
    under_way.release(static_cast<uint32_t>(completed.load(std::memory_order_acquire) - from));
    cycles.poll.add(__rdtsc() - asked, count);
  }
  cycles.all = __rdtsc() - begin;
  return cycles;
}

void verify(const Job& job) {
  const uint32_t bytes = job.pool.slice_bytes();
  for (uint64_t i = 0; i < job.slices; ++i)
    require(std::memcmp(job.guest + i * bytes, job.pool.slice(job.first + i), bytes) == 0, "every byte");
}

// Of one slice size and way, one per repetition; cycles per slice.
struct Row {
  uint32_t slice_bytes = 0;
  const char* way = "";
  std::vector<double> fill, doorbell, poll, sum, wait, gb_s;
};

struct Spread {
  double median, min, max;
};
Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

std::vector<Row> run(const Options& options, DmaDevice& device, double tsc_hz, const HugeRegion& guest) {
  std::vector<Row> rows;
  const PageKernels& kernels = *supported_page_kernels().back();
  for (const uint32_t slice : kSliceBytes) {
    const Pool pool(slice);
    const std::size_t first_row = rows.size();
    for (const char* const way : kWays) rows.push_back({slice, way, {}, {}, {}, {}, {}, {}});
    uint64_t turn = 0;
    // The first repetition is a warm-up.
    for (uint32_t i = 0; i <= options.repetitions; ++i)
      for (std::size_t way = 0; way < kWays.size(); ++way) {
        // Other bytes than the run before left there.
        const Job job{pool, guest.data(), ++turn * 17, guest.size() / slice};
        Cycles cycles = way == 0   ? by_writer(job, kernels)
                        : way == 1 ? by_dma(job, device, nullptr)
                        : way == 2 ? by_dma(job, device, &kernels)
                                   : by_floor(job);
        verify(job);
        if (i == 0) continue;
        Row& row = rows[first_row + way];
        const auto per_slice = [&](uint64_t n) {
          return static_cast<double>(n) / static_cast<double>(job.slices);
        };
        row.fill.push_back(cycles.fill.per_segment());
        row.doorbell.push_back(cycles.doorbell.per_segment());
        row.poll.push_back(cycles.poll.per_segment());
        row.sum.push_back(row.fill.back() + row.doorbell.back() + row.poll.back());
        row.wait.push_back(per_slice(cycles.wait));
        row.gb_s.push_back(static_cast<double>(slice) / per_slice(cycles.all) * tsc_hz / 1e9);
      }
  }
  return rows;
}

void print(const std::vector<Row>& rows) {
  std::printf(
      "cycles per slice, medians (least to most of the sum)\n%6s %-11s %8s %9s %7s %8s %22s %9s %7s\n",
      "slice", "way", "fill", "doorbell", "poll", "sum", "", "waiting", "GB/s");
  for (const Row& row : rows) {
    const Spread sum = spread_of(row.sum);
    std::printf("%6u %-11s %8.1f %9.1f %7.1f %8.1f  (%8.1f to %8.1f) %9.1f %7.2f\n", row.slice_bytes, row.way,
                spread_of(row.fill).median, spread_of(row.doorbell).median, spread_of(row.poll).median,
                sum.median, sum.min, sum.max, spread_of(row.wait).median, spread_of(row.gb_s).median);
  }
}

std::string text_of(const char* name, const std::vector<double>& values) {
  const Spread spread = spread_of(values);
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(), ", \"%s\": {\"median\": %.2f, \"min\": %.2f, \"max\": %.2f}", name,
                spread.median, spread.min, spread.max);
  return text.data();
}

void write_json(const std::string& path, const std::vector<Row>& rows, const HugeRegion& guest,
                double tsc_hz) {
  std::ofstream out(path);
  out << "{\"tsc_hz\": " << static_cast<uint64_t>(tsc_hz) << ", \"guest_bytes\": " << guest.size()
      << ", \"pages\": \"" << guest.pages() << "\", \"rows\": [";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    out << (i == 0 ? "\n" : ",\n") << "  {\"slice_bytes\": " << row.slice_bytes << ", \"way\": \"" << row.way
        << "\"" << text_of("fill", row.fill) << text_of("doorbell", row.doorbell) << text_of("poll", row.poll)
        << text_of("sum", row.sum) << text_of("wait", row.wait) << text_of("gb_s", row.gb_s) << "}";
  }
  out << "\n]}\n";
  if (!out.flush()) throw std::runtime_error("cannot write " + path);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (i + 1 == argc) throw std::invalid_argument(std::string(name) + ": its value is missing");
    const std::string value = argv[++i];
    if (name == "--cpu") {
      options.cpu = std::stoi(value);
    } else if (name == "--device-cpu") {
      options.device_cpu = std::stoi(value);
    } else if (name == "--repetitions") {
      options.repetitions = static_cast<uint32_t>(std::stoul(value));
    } else if (name == "--guest") {
      options.guest_bytes = std::stoull(value) << 20;
    } else if (name == "--json") {
      options.json = value;
    } else {
      throw std::invalid_argument("no option " + std::string(name));
    }
  }
  if (options.repetitions == 0 || options.guest_bytes == 0)
    throw std::invalid_argument("--repetitions and --guest are 1 at least");
  return options;
}

int main_of(int argc, char** argv) {
  const Options options = parse(argc, argv);
  // The engine's thread runs where DPDK was started, this one goes elsewhere then.
  pin_to(options.device_cpu);
  EalOptions eal_options;
  eal_options.memory = EalMemory::ordinary;
  eal_options.extra_args = "--vdev=dma_skeleton";
  const Eal eal(eal_options);
  DmaDevice device("dma_skeleton", kDescriptors);
  pin_to(options.cpu);
  const HugeRegion guest(options.guest_bytes);
  const auto tsc = static_cast<double>(tsc_hz());
  const std::vector<Row> rows = run(options, device, tsc, guest);
  print(rows);
  if (!options.json.empty()) write_json(options.json, rows, guest, tsc);
  return 0;
}

}  // namespace
}  // namespace migrx::bench

int main(int argc, char** argv) {
  try {
    return migrx::bench::main_of(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dma_offload: %s\n", error.what());
    return 2;
  }
}

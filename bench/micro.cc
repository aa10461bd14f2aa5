// Small benchmarks of the data path. Each verifies its result before it is timed; cycles are TSC cycles.
//
//   build/bench/micro --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <vector>

#include "bench/micro.h"
#include "loader/multifd/multifd_packet.h"
#include "loader/ram/page_writer.h"
#include "loader/ram/xbzrle.h"

namespace migrx {
namespace {

using bench::Region;
using bench::require;

constexpr std::size_t kPoolBytes = 8 << 20;  // warm: what a few connections' packet buffers take

// Each slice by itself: what does not fill a line goes by ordinary stores, so that the line two slices share
// is read and stored twice.
void write_apart(const PageKernels& kernels, std::byte* dst, Bytes slice) {
  const std::size_t to_line = (kLineBytes - reinterpret_cast<uintptr_t>(dst) % kLineBytes) % kLineBytes;
  const std::size_t head = std::min(slice.size(), to_line);
  std::memcpy(dst, slice.data(), head);
  LineWriter lines;
  lines.dst = dst + head;
  kernels.write(lines, slice.data() + head, slice.size() - head);
  std::memcpy(lines.dst, lines.line, lines.fill);
}

enum class BoundaryLines : uint8_t { joined, apart };

// The writer of the loader: slices of a pool, wherever they are split, to consecutive guest memory.
void page_copy(benchmark::State& state, const PageKernels* kernels, BoundaryLines boundary,
               std::size_t guest_bytes) {
  const auto slice = static_cast<std::size_t>(state.range(0));
  const Region pool(kPoolBytes);
  const Region guest(guest_bytes);
  std::mt19937_64 random(1);
  for (std::size_t i = 0; i < pool.size(); i += 8) {
    const uint64_t v = random();
    std::memcpy(pool.data() + i, &v, 8);
  }
  // Buffers lie 2 KiB apart (or as far as the slice needs), payload behind 66 bytes of headers.
  const std::size_t stride = (slice + 66 + 2047) / 2048 * 2048;
  const std::size_t buffers = kPoolBytes / stride;
  const std::size_t slices = guest_bytes / slice;
  const auto run = [&] {
    if (kernels == nullptr) {
      for (std::size_t i = 0; i < slices; ++i)
        std::memcpy(guest.data() + i * slice, pool.data() + i % buffers * stride + 66, slice);
      return;
    }
    if (boundary == BoundaryLines::apart) {
      for (std::size_t i = 0; i < slices; ++i)
        write_apart(*kernels, guest.data() + i * slice, {pool.data() + i % buffers * stride + 66, slice});
      kernels->fence();
      return;
    }
    PageWriter writer(*kernels);
    writer.seek(guest.data());
    for (std::size_t i = 0; i < slices; ++i) writer.write({pool.data() + i % buffers * stride + 66, slice});
    writer.fence();
  };
  run();
  for (std::size_t i = 0; i < slices; i += 97)
    require(std::memcmp(guest.data() + i * slice, pool.data() + i % buffers * stride + 66, slice) == 0,
            "page copy");
  for (auto _ : state) run();
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(slices * slice));
}

// The limit of this machine: full lines to memory from the first cache. zeros: from registers, and nothing
// but zeros, for which some memory controllers have a shorter way.
void non_temporal_limit(benchmark::State& state, const PageKernels* kernels, bool zeros,
                        std::size_t guest_bytes) {
  const Region guest(guest_bytes);
  alignas(kPageBytes) std::array<std::byte, kPageBytes> page;
  std::mt19937_64 random(1);
  for (std::byte& byte : page) byte = static_cast<std::byte>(random());
  kernels->clear(guest.data(), guest.size());
  kernels->fence();
  require(kernels->is_zero(guest.data(), guest.size()), "clear");
  for (auto _ : state) {
    PageWriter writer(*kernels);
    for (std::size_t at = 0; at < guest.size(); at += kPageBytes)
      if (zeros)
        writer.clear_page(guest.data() + at);
      else
        writer.copy_page(guest.data() + at, page.data());
    writer.fence();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(guest_bytes));
}

void multifd_header(benchmark::State& state) {
  constexpr std::size_t kHeaderBytes = kMultifdPrefixBytes + kMultifdBodyBytes;
  std::vector<std::byte> header(kHeaderBytes);
  store_be32(&header[0], kMultifdMagic);
  store_be32(&header[4], kMultifdVersion);
  store_be32(&header[12], kMultifdPagesMax);
  store_be32(&header[16], kMultifdPagesMax);
  store_be32(&header[20], kMultifdPagesMax * kPageBytes);
  std::memcpy(&header[64], "mem", 4);
  MultifdPacket packet;
  uint32_t flags = 0;
  require(!parse_multifd_prefix(header.data(), 0, flags) &&
              !parse_multifd_body(flags, header.data() + kMultifdPrefixBytes, 0, MultifdCompression::none,
                                  packet),
          "a good header is accepted");
  require(packet.normal_pages == kMultifdPagesMax && packet.ramblock == "mem", "its fields");
  for (auto _ : state) {
    benchmark::DoNotOptimize(parse_multifd_prefix(header.data(), 0, flags));
    benchmark::DoNotOptimize(
        parse_multifd_body(flags, header.data() + kMultifdPrefixBytes, 0, MultifdCompression::none, packet));
  }
}

// A page of which `changed` bytes differ, in runs of eight.
void xbzrle(benchmark::State& state) {
  const auto runs = static_cast<std::size_t>(state.range(0));
  std::vector<std::byte> encoded;
  const std::size_t gap = kPageBytes / runs - 8;
  for (std::size_t i = 0; i < runs; ++i) {
    if (gap < 0x80) {
      encoded.push_back(static_cast<std::byte>(gap));
    } else {
      encoded.push_back(static_cast<std::byte>((gap & 0x7f) | 0x80));
      encoded.push_back(static_cast<std::byte>(gap >> 7));
    }
    encoded.push_back(std::byte{8});
    for (int k = 0; k < 8; ++k) encoded.push_back(static_cast<std::byte>(i + 1));
  }
  const Region page(2 << 20);
  require(xbzrle_apply(page.data(), encoded) == XbzrleStatus::ok, "a good patch is accepted");
  require(page.data()[gap] == std::byte{1} && page.data()[kPageBytes - 1] == static_cast<std::byte>(runs),
          "its bytes");
  for (auto _ : state) benchmark::DoNotOptimize(xbzrle_apply(page.data(), encoded));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * kPageBytes);
}

}  // namespace
}  // namespace migrx

int main(int argc, char** argv) {
  using namespace migrx;
  // More than a last-level cache holds; --guest=MIB, the first word, says otherwise.
  std::optional<std::size_t> guest_mib;
  if (argc > 1 && std::strncmp(argv[1], "--guest=", 8) == 0) {
    guest_mib = std::strtoull(argv[1] + 8, nullptr, 10);
    argv[1] = argv[0];
    ++argv;
    --argc;
  }
  const std::size_t guest_bytes = guest_mib.value_or(256) << 20;
  for (const PageKernels* const kernels : supported_page_kernels()) {
    const std::string name = kernels->name;
    benchmark::RegisterBenchmark(("page_copy/" + name).c_str(), page_copy, kernels, BoundaryLines::joined,
                                 guest_bytes)
        ->Arg(1448)
        ->Arg(8948)
        ->Arg(65536);
    benchmark::RegisterBenchmark(("page_copy_apart/" + name).c_str(), page_copy, kernels,
                                 BoundaryLines::apart, guest_bytes)
        ->Arg(1448)
        ->Arg(8948);
    benchmark::RegisterBenchmark(("non_temporal_limit/" + name).c_str(), non_temporal_limit, kernels, false,
                                 guest_bytes);
    benchmark::RegisterBenchmark(("non_temporal_zeros/" + name).c_str(), non_temporal_limit, kernels, true,
                                 guest_bytes);
  }
  benchmark::RegisterBenchmark("page_copy/memcpy", page_copy, nullptr, BoundaryLines::joined, guest_bytes)
      ->Arg(1448)
      ->Arg(8948)
      ->Arg(65536);
  benchmark::RegisterBenchmark("multifd_header", multifd_header);
  benchmark::RegisterBenchmark("xbzrle", xbzrle)->Arg(2)->Arg(16)->Arg(64);
  bench::register_copy_benchmarks();
  bench::register_tcp_benchmarks();
  bench::register_payload_benchmarks();
  bench::register_tls_benchmarks(guest_bytes);
  bench::register_in_place_benchmarks(guest_mib.value_or(512));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

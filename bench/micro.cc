// Small benchmarks of the data path. Each verifies its result before it is timed; cycles are TSC cycles.
//
//   build/bench/micro --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>
#include <x86intrin.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "bench/micro.h"
#include "dataplane/tcp/connection.h"
#include "dataplane/wire/segment.h"
#include "loader/multifd/multifd_packet.h"
#include "loader/ram/page_writer.h"
#include "loader/ram/xbzrle.h"

namespace migrx {
namespace {

using bench::Region;
using bench::require;

constexpr std::size_t kGuestBytes = 256 << 20;
constexpr std::size_t kPoolBytes = 8 << 20;  // warm: what a few connections' packet buffers take

// The writer of the loader: slices of a pool, wherever they are split, to consecutive guest memory.
void page_copy(benchmark::State& state, const PageKernels* kernels) {
  const auto slice = static_cast<std::size_t>(state.range(0));
  const Region pool(kPoolBytes);
  const Region guest(kGuestBytes);
  std::mt19937_64 random(1);
  for (std::size_t i = 0; i < pool.size(); i += 8) {
    const uint64_t v = random();
    std::memcpy(pool.data() + i, &v, 8);
  }
  // Buffers lie 2 KiB apart (or as far as the slice needs), payload behind 66 bytes of headers.
  const std::size_t stride = (slice + 66 + 2047) / 2048 * 2048;
  const std::size_t buffers = kPoolBytes / stride;
  const std::size_t slices = kGuestBytes / slice;
  const auto run = [&] {
    if (kernels == nullptr) {
      for (std::size_t i = 0; i < slices; ++i)
        std::memcpy(guest.data() + i * slice, pool.data() + i % buffers * stride + 66, slice);
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

// The limit of this machine: full lines to memory from registers.
void non_temporal_limit(benchmark::State& state, const PageKernels* kernels) {
  const Region guest(kGuestBytes);
  kernels->clear(guest.data(), guest.size());
  kernels->fence();
  require(kernels->is_zero(guest.data(), guest.size()), "clear");
  for (auto _ : state) {
    kernels->clear(guest.data(), guest.size());
    kernels->fence();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(kGuestBytes));
}

// One connection, bursts of 32 in-order segments: parse, input, hand-off, reading, ACK decision, reclaim.
void tcp_in_order(benchmark::State& state) {
  constexpr uint32_t kBurst = 32;
  constexpr uint32_t kPayload = 1448;
  TcpConfig config;
  config.mss = 1460;
  config.window_bytes = 1 << 20;
  Handoff handoff(1024);
  TcpCounters counters;
  TcpConnection connection(config, handoff, counters);
  TcpHandshake handshake;
  handshake.tuple = {{0x0a4d0001}, {0x0a4d0002}, 40000, 4444};
  handshake.irs = SeqNum{1000};
  handshake.iss = SeqNum{2000};
  handshake.send_mss = 1460;
  handshake.send_shift = 7;
  handshake.receive_shift = window_scale_for(config.window_bytes);
  handshake.timestamps = true;
  handshake.sack = true;
  handshake.send_window = 65535;
  handshake.receive_window = 65535;
  uint64_t now_ns = 1'000'000'000;
  connection.open(handshake, now_ns);

  constexpr std::size_t kFrames = 4096;
  constexpr std::size_t kStride = 2048;
  const Region frames(kFrames * kStride);
  OutSegment out;
  SeqNum seq = handshake.irs + 1U;
  const std::vector<std::byte> payload(kPayload, std::byte{0x5a});
  // Frames are built once and patched with the sequence number as it is presented.
  out.tuple = {handshake.tuple.local_ip, handshake.tuple.remote_ip, handshake.tuple.local_port,
               handshake.tuple.remote_port};
  uint32_t length = 0;
  uint32_t seq_at = 0;
  for (std::size_t i = 0; i < kFrames; ++i) {
    out.seq = SeqNum{0x01020304};
    out.ack = handshake.iss + 1U;
    out.flags = tcp_flag::ack;
    out.window = 512;
    out.options = tcp_option::timestamps;
    out.ts_val = 1;
    out.ts_ecr = 1;
    out.payload = payload;
    length = build_segment(out, {frames.data() + i * kStride, kStride}, TxChecksum::full) - kPayload;
  }
  seq_at = 14 + 20 + 4;
  std::size_t next = 0;
  uint64_t cycles = 0;
  uint64_t segments = 0;
  uint64_t acks = 0;
  const auto burst = [&] {
    for (uint32_t i = 0; i < kBurst; ++i) {
      store_be32(frames.data() + (next + i) % kFrames * kStride + seq_at, seq.value());
      seq = seq + kPayload;
    }
    now_ns += 10'000;
    const uint64_t start = __rdtsc();
    for (uint32_t i = 0; i < kBurst; ++i) {
      std::byte* const frame = frames.data() + (next + i) % kFrames * kStride;
      TcpSegment segment;
      if (parse_segment({frame, length + kPayload}, length + kPayload, segment) != WireCounter::segment_ok)
        std::abort();
      Slice slice{frame + segment.payload_offset, frame, segment.payload_length, StreamEnd::none};
      benchmark::DoNotOptimize(connection.on_segment(segment, {&slice, 1}, now_ns));
    }
    while (connection.poll_output(now_ns, out)) ++acks;
    // The worker's side, reduced to taking and releasing.
    for (auto run = handoff.readable(); !run.empty(); run = handoff.readable()) {
      handoff.advance(static_cast<uint32_t>(run.size()));
      handoff.release(static_cast<uint32_t>(run.size()));
    }
    std::array<void*, 64> freed;
    while (connection.reclaim(freed) == freed.size()) {
    }
    cycles += __rdtsc() - start;
    segments += kBurst;
    next = (next + kBurst) % kFrames;
  };
  burst();
  require(handoff.bytes_received.read() == kBurst * kPayload, "all in-order bytes are handed over");
  cycles = segments = acks = 0;
  for (auto _ : state) burst();
  require(handoff.bytes_received.read() == (segments + kBurst) * kPayload, "nothing was dropped");
  state.counters["cycles/segment"] = static_cast<double>(cycles) / static_cast<double>(segments);
  state.counters["ACKs/burst"] = static_cast<double>(acks) / static_cast<double>(state.iterations());
  state.SetItemsProcessed(static_cast<int64_t>(segments));
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
  for (const PageKernels* const kernels : supported_page_kernels()) {
    const std::string name = kernels->name;
    benchmark::RegisterBenchmark(("page_copy/" + name).c_str(), page_copy, kernels)
        ->Arg(1448)
        ->Arg(8948)
        ->Arg(65536);
    benchmark::RegisterBenchmark(("non_temporal_limit/" + name).c_str(), non_temporal_limit, kernels);
  }
  benchmark::RegisterBenchmark("page_copy/memcpy", page_copy, nullptr)->Arg(1448)->Arg(8948)->Arg(65536);
  benchmark::RegisterBenchmark("tcp_in_order", tcp_in_order);
  benchmark::RegisterBenchmark("multifd_header", multifd_header);
  benchmark::RegisterBenchmark("xbzrle", xbzrle)->Arg(2)->Arg(16)->Arg(64);
  bench::register_tcp_benchmarks();
  bench::register_payload_benchmarks();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

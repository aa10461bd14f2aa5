// TCP input in order and under loss, and the hand-off ring beside DPDK's.
#include <benchmark/benchmark.h>
#include <x86intrin.h>

#include <array>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

// DPDK since 24.11 leaves the functions of rte_ring_elem.h out of its extern "C".
extern "C" {
#include <rte_ring.h>
}

#include "bench/micro.h"
#include "dataplane/tcp/connection.h"
#include "dataplane/wire/segment.h"

namespace migrx::bench {
namespace {

constexpr uint32_t kBurstSegments = 32;
constexpr uint32_t kPayload = 1448;

// An ESTABLISHED connection with its hand-off ring, both ends of which are on this thread.
class Established {
 public:
  Established(const TcpConfig& config, SeqNum irs) : connection_(config, handoff_, counters_) {
    handshake_.tuple = {Ipv4Address{0x0a4d0001}, Ipv4Address{0x0a4d0002}, 40000, 4444};
    handshake_.irs = irs;
    handshake_.iss = SeqNum{2000};
    handshake_.send_mss = 1460;
    handshake_.send_shift = 7;
    handshake_.receive_shift = window_scale_for(config.window_bytes);
    handshake_.timestamps = true;
    handshake_.sack = true;
    handshake_.send_window = 65535;
    handshake_.receive_window = 65535;
    connection_.open(handshake_, kNsPerSecond);
  }
  [[nodiscard]] TcpConnection& connection() noexcept { return connection_; }
  [[nodiscard]] Handoff& handoff() noexcept { return handoff_; }
  [[nodiscard]] const FourTuple& tuple() const noexcept { return handshake_.tuple; }
  // Numbers of the first byte of either side.
  [[nodiscard]] SeqNum first() const noexcept { return handshake_.irs + 1U; }
  [[nodiscard]] SeqNum own_first() const noexcept { return handshake_.iss + 1U; }

  // The worker's side, reduced to showing the slices to `see` and releasing them; then buffers come home.
  template <typename See>
  void read_and_reclaim(const See& see) noexcept {
    for (auto run = handoff_.readable(); !run.empty(); run = handoff_.readable()) {
      for (const Slice& slice : run) see(slice);
      handoff_.advance(static_cast<uint32_t>(run.size()));
      handoff_.release(static_cast<uint32_t>(run.size()));
    }
    std::array<void*, 64> freed;
    while (connection_.reclaim(freed) == freed.size()) {
    }
  }

 private:
  Handoff handoff_{1024};
  TcpCounters counters_;
  TcpHandshake handshake_;
  TcpConnection connection_;
};

// Bursts of in-order segments: parse, input, hand-off, reading, ACK decision, reclaim.
void tcp_in_order(benchmark::State& state) {
  TcpConfig config;
  config.mss = 1460;
  config.window_bytes = 1 << 20;
  Established peer(config, SeqNum{1000});
  uint64_t now_ns = kNsPerSecond;

  // Frames are built once and patched with the sequence number as they are presented.
  constexpr std::size_t kFrames = 4096;
  constexpr std::size_t kStride = 2048;
  constexpr std::size_t kSeqAt = 14 + 20 + 4;
  const Region frames(kFrames * kStride);
  const std::vector<std::byte> payload(kPayload, std::byte{0x5a});
  OutSegment out;
  out.tuple = {peer.tuple().local_ip, peer.tuple().remote_ip, peer.tuple().local_port,
               peer.tuple().remote_port};
  out.ack = peer.own_first();
  out.flags = tcp_flag::ack;
  out.window = 512;
  out.options = tcp_option::timestamps;
  out.ts_val = 1;
  out.ts_ecr = 1;
  out.payload = payload;
  uint32_t length = 0;
  for (std::size_t i = 0; i < kFrames; ++i)
    length = build_segment(out, {frames.data() + i * kStride, kStride}, TxChecksum::full);
  SeqNum seq = peer.first();
  std::size_t next = 0;
  uint64_t cycles = 0, segments = 0, acks = 0;
  const auto burst = [&] {
    for (uint32_t i = 0; i < kBurstSegments; ++i) {
      store_be32(frames.data() + (next + i) % kFrames * kStride + kSeqAt, seq.value());
      seq = seq + kPayload;
    }
    now_ns += 10'000;
    const uint64_t start = __rdtsc();
    for (uint32_t i = 0; i < kBurstSegments; ++i) {
      std::byte* const frame = frames.data() + (next + i) % kFrames * kStride;
      TcpSegment segment;
      require(parse_segment({frame, length}, length, segment) == WireCounter::segment_ok, "a good frame");
      Slice slice{frame + segment.payload_offset, frame, segment.payload_length, StreamEnd::none};
      benchmark::DoNotOptimize(peer.connection().on_segment(segment, {&slice, 1}, now_ns));
    }
    while (peer.connection().poll_output(now_ns, out)) ++acks;
    peer.read_and_reclaim([](const Slice&) {});
    cycles += __rdtsc() - start;
    segments += kBurstSegments;
    next = (next + kBurstSegments) % kFrames;
  };
  burst();
  require(peer.handoff().bytes_received.read() == kBurstSegments * kPayload,
          "all in-order bytes are handed over");
  cycles = segments = acks = 0;
  for (auto _ : state) burst();
  require(peer.handoff().bytes_received.read() == (segments + kBurstSegments) * kPayload,
          "nothing was dropped");
  state.counters["cycles/segment"] = static_cast<double>(cycles) / static_cast<double>(segments);
  state.counters["ACKs/burst"] = static_cast<double>(acks) / static_cast<double>(state.iterations());
  state.SetItemsProcessed(static_cast<int64_t>(segments));
}

// Segments of which some are lost, to come again one round trip later; the source goes on meanwhile, as one
// with SACK does. range(0): lost per 1000.
class LossySource {
 public:
  explicit LossySource(double loss) : loss_(loss) {}
  // Index of the next segment that arrives.
  uint64_t next() {
    for (;;) {
      ++clock_;
      if (!again_.empty() && again_.front().due <= clock_) {
        const uint64_t index = again_.front().index;
        again_.pop_front();
        return index;
      }
      const uint64_t index = sent_++;
      if (!lost(random_)) return index;
      again_.push_back({index, clock_ + kRoundTrip});
    }
  }

 private:
  static constexpr uint64_t kRoundTrip = 256;  // segments: 100 GbE and 30 microseconds
  struct Again {
    uint64_t index;
    uint64_t due;
  };
  bool lost(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53 < loss_; }
  const double loss_;
  std::mt19937_64 random_{7};
  std::deque<Again> again_;
  uint64_t sent_ = 0;
  uint64_t clock_ = 0;
};

void reassembly(benchmark::State& state) {
  TcpConfig config;
  config.mss = 1460;
  Established peer(config, SeqNum{0xffff'0000});
  uint64_t now_ns = kNsPerSecond;

  // Payload is looked at only where segments overlap, and here none do: 2048 places suffice to tell them
  // apart.
  constexpr uint64_t kPlaces = 2048;
  const Region memory(kPlaces * 2048);
  LossySource source(static_cast<double>(state.range(0)) / 1000);
  uint64_t expected = 0, segments = 0, cycles = 0, acks = 0, sacks = 0;
  std::array<uint64_t, kBurstSegments> indices{};
  const auto burst = [&] {
    for (uint64_t& index : indices) index = source.next();
    now_ns += 5'000;
    const uint64_t start = __rdtsc();
    for (const uint64_t index : indices) {
      TcpSegment segment;
      segment.tuple = peer.tuple();
      segment.seq = peer.first() + static_cast<uint32_t>(index * kPayload);
      segment.ack = peer.own_first();
      segment.flags = tcp_flag::ack;
      segment.window = 512;
      segment.options = tcp_option::timestamps;
      segment.ts_val = 1;
      segment.payload_length = kPayload;
      std::byte* const place = memory.data() + index % kPlaces * 2048;
      Slice slice{place, place, kPayload, StreamEnd::none};
      benchmark::DoNotOptimize(peer.connection().on_segment(segment, {&slice, 1}, now_ns));
      require(slice.buffer == nullptr, "every segment is kept");
    }
    OutSegment out;
    while (peer.connection().poll_output(now_ns, out)) {
      ++acks;
      sacks += out.sack_count;
    }
    peer.read_and_reclaim([&](const Slice& slice) {
      require(slice.data == memory.data() + expected++ % kPlaces * 2048, "the order of the stream");
    });
    cycles += __rdtsc() - start;
    segments += kBurstSegments;
  };
  for (int i = 0; i < 100; ++i) burst();
  require(state.range(0) == 0 || peer.handoff().out_of_order.read() > 0, "some came out of order");
  cycles = segments = acks = sacks = 0;
  for (auto _ : state) burst();
  const auto per_segment = [&](uint64_t n) { return static_cast<double>(n) / static_cast<double>(segments); };
  state.counters["cycles/segment"] = per_segment(cycles);
  state.counters["ACKs/segment"] = per_segment(acks);
  state.counters["SACK blocks/segment"] = per_segment(sacks);
}

// What a burst costs in instructions, one thread playing both sides: slices there, buffers back.
void handoff_ring(benchmark::State& state) {
  Handoff ring(1024);
  std::array<std::byte, 64> buffer{};
  std::array<void*, kBurstSegments> freed;
  uint64_t bytes = 0;
  for (auto _ : state) {
    for (uint32_t i = 0; i < kBurstSegments; ++i)
      ring.push({buffer.data(), buffer.data() + i, kPayload, StreamEnd::none});
    ring.publish();
    for (auto run = ring.readable(); !run.empty(); run = ring.readable()) {
      for (const Slice& slice : run) bytes += slice.length;
      ring.advance(static_cast<uint32_t>(run.size()));
      ring.release(static_cast<uint32_t>(run.size()));
    }
    uint32_t count = 0;
    benchmark::DoNotOptimize(ring.reclaim(freed, count));
    require(count == kBurstSegments && freed[3] == buffer.data() + 3, "buffers come home");
  }
  require(bytes == static_cast<uint64_t>(state.iterations()) * kBurstSegments * kPayload,
          "all bytes were seen");
  state.SetItemsProcessed(state.iterations() * kBurstSegments);
}

// The same with two of DPDK's rings, one for slices and one for the way home, single producer and consumer.
void dpdk_ring(benchmark::State& state) {
  constexpr unsigned kSlots = 1024;
  struct Free {
    void operator()(rte_ring* ring) const { std::free(ring); }
  };
  const auto make = [](unsigned element) {
    const auto bytes = static_cast<std::size_t>(rte_ring_get_memsize_elem(element, kSlots));
    auto* const ring = static_cast<rte_ring*>(std::aligned_alloc(128, (bytes + 127) / 128 * 128));
    require(rte_ring_init(ring, "bench", kSlots, RING_F_SP_ENQ | RING_F_SC_DEQ) == 0, "rte_ring_init");
    return std::unique_ptr<rte_ring, Free>(ring);
  };
  const auto there = make(sizeof(Slice));
  const auto back = make(sizeof(void*));
  std::array<std::byte, 64> buffer{};
  std::array<Slice, kBurstSegments> in, out;
  std::array<void*, kBurstSegments> home{}, freed{};
  uint64_t bytes = 0;
  for (auto _ : state) {
    for (uint32_t i = 0; i < kBurstSegments; ++i)
      in[i] = {buffer.data(), buffer.data() + i, kPayload, StreamEnd::none};
    benchmark::DoNotOptimize(in);
    rte_ring_sp_enqueue_burst_elem(there.get(), in.data(), sizeof(Slice), kBurstSegments, nullptr);
    const unsigned n =
        rte_ring_sc_dequeue_burst_elem(there.get(), out.data(), sizeof(Slice), kBurstSegments, nullptr);
    for (unsigned i = 0; i < n; ++i) {
      bytes += out[i].length;
      home[i] = out[i].buffer;
    }
    rte_ring_sp_enqueue_burst(back.get(), home.data(), n, nullptr);
    const unsigned count = rte_ring_sc_dequeue_burst(back.get(), freed.data(), kBurstSegments, nullptr);
    require(count == kBurstSegments && freed[3] == buffer.data() + 3, "buffers come home");
  }
  require(bytes == static_cast<uint64_t>(state.iterations()) * kBurstSegments * kPayload,
          "all bytes were seen");
  state.SetItemsProcessed(state.iterations() * kBurstSegments);
}

}  // namespace

void register_tcp_benchmarks() {
  benchmark::RegisterBenchmark("tcp_in_order", tcp_in_order);
  benchmark::RegisterBenchmark("reassembly/lost_per_1000", reassembly)->Arg(0)->Arg(1)->Arg(10)->Arg(50);
  benchmark::RegisterBenchmark("handoff_ring/burst_32", handoff_ring);
  benchmark::RegisterBenchmark("rte_ring_there_and_back/burst_32", dpdk_ring);
}

}  // namespace migrx::bench

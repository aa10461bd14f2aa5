#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "bench/pipeline/receiver.h"
#include "bench/pipeline/stage_timing.h"
#include "bench/pipeline/stages.h"
#include "dataplane/agent_thread.h"
#include "dataplane/flow_table.h"
#include "dataplane/tcp/connection.h"
#include "dataplane/wire/header_match.h"
#include "numa/clock.h"

namespace migrx::bench {
namespace {

// Rungs of parts; PollCore as a whole stands above them.
enum class Level : uint8_t { port, parse, lookup, input, reclaim, acks };

constexpr uint32_t kPrefetchAhead = 8;  // as in poll_core.cc

GuestPlan plan_for(const StageOptions& options) {
  constexpr uint64_t kPages = 16'384;
  const uint64_t bytes = (uint64_t{options.segments} + 200'000) * options.mtu;
  return {options.channels, kPages, static_cast<uint32_t>(bytes / (kPages * kPageBytes)) + 2, false};
}

ReplayOptions replay_for(const StageOptions& options, uint32_t buffers) {
  ReplayOptions replay;
  replay.mtu = options.mtu;
  replay.buffers = buffers;
  replay.run = options.run;
  replay.checksum_good = options.checksum_good;
  replay.demote = options.demote;
  replay.burst = options.burst;
  return replay;
}

// The other side of the hand-off rings: on a CPU of its own, or between the bursts of the measured thread.
class Reading {
 public:
  Reading(std::vector<Handoff*> handoffs, int32_t cpu) : reader_(std::move(handoffs)), own_thread_(cpu >= 0) {
    if (own_thread_)
      thread_ = std::thread([this, cpu] {
        pin_to(cpu);
        while (!stop_.load(std::memory_order_acquire)) reader_.read();
      });
  }
  ~Reading() { end(); }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;
  void between_bursts() noexcept {
    if (!own_thread_) reader_.read();
  }
  // Reads what is left. Returns the bytes read in all.
  uint64_t end() noexcept {
    stop_.store(true, std::memory_order_release);
    if (thread_.joinable()) thread_.join();
    reader_.read();
    return reader_.bytes();
  }

 private:
  SliceReader reader_;
  const bool own_thread_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Runs `turn` (which adds its burst to the times and returns how many segments it had) until the pool has
// been used once and then for as many segments as wanted.
template <class Turn>
double measure(const StageOptions& options, uint32_t buffers, const Turn& turn) {
  constexpr uint64_t kGiveUpNs = 20'000'000'000;
  const uint64_t give_up_ns = monotonic_ns() + kGiveUpNs;
  const auto on_time = [give_up_ns] {
    if (monotonic_ns() > give_up_ns) throw std::runtime_error("the source came to a stand");
    return true;
  };
  BurstTimes times(options.segments);
  uint64_t segments = 0;
  while (segments < buffers && on_time()) segments += turn(times);
  times.clear();
  while (times.segments() < options.segments && on_time()) turn(times);
  return times.per_segment();
}

template <Level kLevel>
class Parts {
 public:
  explicit Parts(const StageOptions& options)
      : options_(options),
        pool_(plan_pool(options.mtu, options.pool_mib, options.channels, 0)),
        plan_(plan_for(options)),
        tcp_(tcp_config(options, pool_)),
        first_window_(std::min(65535U, window_for(tcp_, pool_.quota, tcp_.mss))),
        port_(replay(options, pool_.buffers, first_window_), plan_),
        mac_(port_.mac()),
        flows_(port_.connections(), 0x5eed),
        touched_(port_.connections()),
        is_touched_(port_.connections()) {
    for (uint32_t i = 0; i < port_.connections(); ++i) {
      handoffs_.push_back(std::make_unique<Handoff>(pool_.quota + 1));
      connections_.push_back(std::make_unique<TcpConnection>(tcp_, *handoffs_.back(), counters_));
      connections_.back()->open(handshake(i), monotonic_ns());
      if (!flows_.insert(port_.tuple_of(i), i)) throw std::logic_error("two connections of one tuple");
    }
    port_.open_gate();
  }

  double run(std::string& problem) {
    std::vector<Handoff*> all;
    for (const auto& handoff : handoffs_) all.push_back(handoff.get());
    Reading reading(all, kLevel >= Level::input ? options_.other_cpu : -1);
    const double cycles = measure(options_, pool_.buffers,
                                  [this, &reading](BurstTimes& times) { return turn(times, reading); });
    const uint64_t read = reading.end();
    uint64_t received = 0;
    for (const auto& handoff : handoffs_) received += handoff->bytes_received.read();
    if (wrong_ > 0) problem = std::to_string(wrong_) + " frames were not what the source sends";
    if (kLevel >= Level::input && (read != received || read < uint64_t{options_.segments} * 500))
      problem = std::to_string(received) + " bytes were taken and " + std::to_string(read) + " handed over";
    if (counters_.read(TcpCounter::over_quota) + counters_.read(TcpCounter::out_of_order) +
            counters_.read(TcpCounter::duplicate) + counters_.read(TcpCounter::outside_window) +
            port_.counters().no_buffer >
        0)
      problem = "segments were dropped";
    return cycles;
  }

 private:
  static ReplayOptions replay(const StageOptions& options, uint32_t buffers, uint32_t first_window) {
    ReplayOptions replay = replay_for(options, buffers);
    replay.established = true;
    replay.boundless = kLevel < Level::input;
    replay.first_window = first_window;
    return replay;
  }
  static TcpConfig tcp_config(const StageOptions& options, const PoolPlan& pool) {
    TcpConfig config;
    config.mss = static_cast<uint16_t>(options.mtu - 40);
    config.buffer_bytes = ReplayPort::buffer_bytes_of(options.mtu);
    config.buffer_quota = pool.quota;
    return config;
  }
  TcpHandshake handshake(uint32_t i) const {
    TcpHandshake out;
    out.tuple = port_.tuple_of(i);
    out.irs = port_.first_byte_of(i) - 1U;
    out.iss = ReplayPort::kReceiverIss;
    out.send_mss = tcp_.mss;
    out.send_shift = 7;
    out.receive_shift = ReplayPort::receiver_shift();
    out.timestamps = true;
    out.sack = true;
    out.send_window = 65535;
    out.receive_window = first_window_;
    return out;
  }

  uint32_t turn(BurstTimes& times, Reading& reading) {
    const uint64_t now_ns = monotonic_ns();
    const uint64_t source = port_.source_cycles();
    const uint64_t start = __rdtsc();
    const uint32_t count = port_.rx_burst(frames_);
    if constexpr (kLevel >= Level::parse) {
      for (uint32_t i = 0; i < std::min(kPrefetchAhead, count); ++i) __builtin_prefetch(frames_[i].data);
      for (uint32_t i = 0; i < count; ++i) {
        if (i + kPrefetchAhead < count) __builtin_prefetch(frames_[i + kPrefetchAhead].data);
        if (!take_predicted(frames_[i], now_ns)) on_frame(frames_[i], now_ns);
      }
    }
    if constexpr (kLevel >= Level::reclaim) reclaim();
    if constexpr (kLevel >= Level::acks) acknowledge(now_ns);
    const uint64_t spent = __rdtsc() - start - (port_.source_cycles() - source);
    // What the rung does not time.
    if constexpr (kLevel < Level::input) {
      for (uint32_t i = 0; i < count; ++i) buffers_[i] = frames_[i].buffer;
      port_.free_bulk({buffers_.data(), count});
    } else {
      if (count == 0)
        for (uint32_t i = 0; i < port_.connections(); ++i) touch(i);
      if (kLevel < Level::reclaim || count == 0) reclaim();
      if (kLevel < Level::acks || count == 0) acknowledge(now_ns);
      for (uint32_t i = 0; i < touched_count_; ++i) is_touched_[touched_[i]] = false;
      touched_count_ = 0;
      reading.between_bursts();
    }
    if (count > 0) times.add(spent, count);
    return count;
  }

  // As PollCore::take_predicted(): the next segment of the connection that the last one was of.
  bool take_predicted(const Frame& frame, uint64_t now_ns) noexcept {
    TcpInOrder segment;
    if (last_index_ == FlowTable::kNone || !headers_learnt_ || frame.l4_checksum != ChecksumState::good ||
        !headers_.matches(frame.data, frame.data_len, segment))
      return false;
    if constexpr (kLevel >= Level::input) {
      if (!connections_[last_index_]->on_in_order(segment, frame.data + HeaderMatch::kHeaderBytes,
                                                  frame.buffer, now_ns))
        return false;
      touch(last_index_);
    } else {
      taken_ = taken_ + segment.payload_length;
    }
    return true;
  }

  void on_frame(const Frame& frame, uint64_t now_ns) noexcept {
    const WireCounter fate = parse_segment({frame.data, frame.data_len}, frame.frame_len, segment_);
    if (fate != WireCounter::segment_ok || !(segment_.link.local_mac == mac_) ||
        segment_.tuple.local_ip != port_.receiver()) {
      ++wrong_;
      return;
    }
    if (frame.l4_checksum != ChecksumState::good) {
      const Bytes whole{frame.data, frame.data_len};
      if (!tcp_checksum_ok(segment_, {&whole, 1})) ++wrong_;
    }
    if constexpr (kLevel < Level::lookup) {
      last_index_ = 0;
      learn(frame);
    } else {
      uint32_t index = last_index_;
      if (index == FlowTable::kNone || segment_.tuple != last_tuple_) index = flows_.find(segment_.tuple);
      if (index == FlowTable::kNone) {
        ++wrong_;
        return;
      }
      last_tuple_ = segment_.tuple;
      last_index_ = index;
      learn(frame);
      if constexpr (kLevel >= Level::input) {
        Slice slice{frame.data + segment_.payload_offset, frame.buffer, segment_.payload_length,
                    StreamEnd::none};
        if (segment_.payload_length == 0) [[unlikely]]
          return on_empty(frame, index, now_ns);
        connections_[index]->on_segment(segment_, {&slice, 1}, now_ns);
        if (slice.buffer != nullptr) ++wrong_;
        if (!is_touched_[index]) touch(index);
      }
    }
  }

  void learn(const Frame& frame) noexcept {
    headers_learnt_ = HeaderMatch::fits(segment_, frame.data);
    if (headers_learnt_) headers_.learn(segment_, frame.data);
  }
  // The main channel is through early, and ends.
  void on_empty(const Frame& frame, uint32_t index, uint64_t now_ns) noexcept {
    if (!segment_.has(tcp_flag::fin)) ++wrong_;
    connections_[index]->on_segment(segment_, {}, now_ns);
    void* const buffer = frame.buffer;
    port_.free_bulk({&buffer, 1});
    touch(index);
  }
  void touch(uint32_t index) noexcept {
    if (is_touched_[index]) return;
    is_touched_[index] = true;
    handoffs_[index]->prefetch_progress();
    touched_[touched_count_++] = index;
  }
  void reclaim() noexcept {
    for (uint32_t i = 0; i < touched_count_; ++i)
      for (uint32_t freed = static_cast<uint32_t>(buffers_.size()); freed == buffers_.size();) {
        freed = connections_[touched_[i]]->reclaim(buffers_);
        if (freed > 0) port_.free_bulk({buffers_.data(), freed});
      }
  }
  void acknowledge(uint64_t now_ns) noexcept {
    bool any = false;
    for (uint32_t i = 0; i < touched_count_; ++i)
      while (connections_[touched_[i]]->poll_output(now_ns, out_)) {
        TxFrame frame;
        if (!port_.tx_alloc(frame)) break;
        port_.tx_commit(build_segment(out_, {frame.data, frame.capacity}, TxChecksum::full));
        any = true;
      }
    if (any) port_.tx_flush();
  }

  const StageOptions options_;
  const PoolPlan pool_;
  const GuestPlan plan_;
  const TcpConfig tcp_;
  const uint32_t first_window_;
  ReplayPort port_;
  const EthernetAddress mac_;
  TcpCounters counters_;
  std::vector<std::unique_ptr<Handoff>> handoffs_;
  std::vector<std::unique_ptr<TcpConnection>> connections_;
  FlowTable flows_;
  FourTuple last_tuple_;
  uint32_t last_index_ = FlowTable::kNone;
  std::vector<uint32_t> touched_;
  std::vector<uint8_t> is_touched_;
  uint32_t touched_count_ = 0;
  HeaderMatch headers_;
  bool headers_learnt_ = false;
  volatile uint64_t taken_ = 0;  // keeps what a rung without TCP found out
  uint64_t wrong_ = 0;
  TcpSegment segment_;
  OutSegment out_;
  std::array<Frame, kBurst> frames_;
  std::array<void*, 256> buffers_;
};

template <Level kLevel>
double parts(const StageOptions& options, std::string& problem) {
  return Parts<kLevel>(options).run(problem);
}

double whole_turn(const StageOptions& options, std::string& problem) {
  const PoolPlan pool = plan_pool(options.mtu, options.pool_mib, options.channels, 0);
  const GuestPlan plan = plan_for(options);
  ReplayPort port(replay_for(options, pool.buffers), plan);
  Tenant tenant{{.port = ReplayPort::kListenPort}};
  PollCore core(poll_core_config(port, options.mtu, options.channels, pool.quota));
  core.request({TenantChange::Kind::open, &tenant});
  std::vector<Handoff*> handoffs;
  while (handoffs.size() < port.connections()) {
    core.do_work(monotonic_ns());
    if (Handoff* const accepted = core.take_accepted(); accepted != nullptr) handoffs.push_back(accepted);
  }
  port.open_gate();
  Reading reading(handoffs, options.other_cpu);
  const double cycles = measure(options, pool.buffers, [&](BurstTimes& times) {
    const uint64_t now_ns = monotonic_ns();
    const uint64_t frames = port.counters().frames;
    const uint64_t source = port.source_cycles();
    const uint64_t start = __rdtsc();
    core.do_work(now_ns);
    const uint64_t spent = __rdtsc() - start - (port.source_cycles() - source);
    reading.between_bursts();
    const auto count = static_cast<uint32_t>(port.counters().frames - frames);
    if (count > 0) times.add(spent, count);
    return count;
  });
  const uint64_t read = reading.end();
  uint64_t received = 0;
  for (Handoff* const handoff : handoffs) received += handoff->bytes_received.read();
  if (read != received || read < uint64_t{options.segments} * 500)
    problem =
        "the poll core took " + std::to_string(received) + " bytes and handed over " + std::to_string(read);
  for (Handoff* const handoff : handoffs) handoff->retire();
  core.on_stop();
  return cycles;
}

// Slices pushed and published, a burst at a time, and nothing else.
double handoff_alone(const StageOptions& options, std::string& problem) {
  const PoolPlan pool = plan_pool(options.mtu, options.pool_mib, options.channels, 0);
  const GuestPlan plan = plan_for(options);
  const ReplayPort port(replay_for(options, pool.buffers), plan);
  // A connection's own ring, but with many channels in a small pool that has no room for a burst.
  Handoff ring(std::max(pool.quota + 1, 2 * options.burst));
  Reading reading({&ring}, options.other_cpu);
  std::array<void*, 256> freed;
  uint64_t pushed = 0;
  uint32_t next = 0;
  const double cycles = measure(options, pool.buffers, [&](BurstTimes& times) -> uint32_t {
    reading.between_bursts();
    for (uint32_t count = 1; count > 0;) static_cast<void>(ring.reclaim(freed, count));
    if (ring.writable() < options.burst) return 0;
    std::array<Slice, kBurst> slices;
    for (uint32_t i = 0; i < options.burst; ++i) {
      const Bytes payload = port.payload(next);
      slices[i] = {payload.data(), freed.data(), static_cast<uint32_t>(payload.size()), StreamEnd::none};
      next = next + 1 == pool.buffers ? 0 : next + 1;
      pushed += payload.size();
    }
    const uint64_t start = __rdtsc();
    for (uint32_t i = 0; i < options.burst; ++i) ring.push(slices[i]);
    ring.publish();
    times.add(__rdtsc() - start, options.burst);
    return options.burst;
  });
  if (reading.end() != pushed) problem = "not all slices came through the ring";
  return cycles;
}

}  // namespace

StageResult run_poll_stages(const StageOptions& options) {
  pin_to(options.cpu);
  struct Step {
    const char* name;
    const char* what;
    double (*run)(const StageOptions&, std::string&);
  };
  const std::array steps{
      Step{"port", "rx_burst of the replay port, source left out", parts<Level::port>},
      Step{options.checksum_good ? "parse" : "parse + checksum",
           "headers of Ethernet, IPv4 and TCP, or their likeness to those of the segment before",
           parts<Level::parse>},
      Step{"lookup", "the segment's connection, where its headers were not those of the one before",
           parts<Level::lookup>},
      Step{"input", "TCP input with reassembly, slices pushed to the hand-off ring", parts<Level::input>},
      Step{"reclaim", "buffers that the worker has released, freed in bulk", parts<Level::reclaim>},
      Step{"acks", "slices published, ACKs decided, built and queued", parts<Level::acks>},
      Step{"turn", "the rest of PollCore's turn: touched and visited connections, timers, counters",
           whole_turn},
  };
  StageResult result;
  for (const Step& step : steps) result.rungs.push_back({step.name, step.what, {}});
  result.alone.push_back({"hand-off", "slices pushed and published", {}});
  for (uint32_t i = 0; i < options.repetitions; ++i) {
    for (std::size_t step = 0; step < steps.size(); ++step) {
      result.rungs[step].cycles.push_back(steps[step].run(options, result.problem));
      if (!result.problem.empty()) {
        result.problem = std::string(steps[step].name) + ": " + result.problem;
        return result;
      }
    }
    result.alone.front().cycles.push_back(handoff_alone(options, result.problem));
    if (!result.problem.empty()) return result;
  }
  return result;
}

}  // namespace migrx::bench

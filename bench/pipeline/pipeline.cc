#include "bench/pipeline/pipeline.h"

#include <sched.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>

#include "bench/pipeline/receiver.h"
#include "bench/pipeline/replay_check.h"
#include "dataplane/agent_thread.h"
#include "dataplane/wire/ipv6.h"
#include "numa/clock.h"

namespace migrx::bench {
namespace {

// Turns that did something, and what they cost.
struct Work {
  uint64_t busy_cycles = 0;
  uint64_t busy_turns = 0;
};

// The poll core, timed from outside.
class TimedPoll final : public Agent {
 public:
  TimedPoll(PollCore& core, ReplayPort& port, std::vector<Handoff*> connections)
      : core_(core), port_(port), connections_(std::move(connections)) {}
  uint32_t do_work(uint64_t now_ns) noexcept override {
    const uint64_t frames = port_.counters().frames;
    const uint64_t source = port_.source_cycles();
    const uint64_t start = __rdtsc();
    if (first_tsc == 0) first_tsc = start;
    const uint32_t work = core_.do_work(now_ns);
    const uint64_t spent = __rdtsc() - start;
    if (work == 0) return 0;
    const uint64_t own = spent - (port_.source_cycles() - source);
    if (port_.counters().frames != frames) {
      receiving.busy_cycles += own;
      ++receiving.busy_turns;
    } else {
      other.busy_cycles += own;
      ++other.busy_turns;
    }
    all_cycles += spent;
    if (++turns_ % kDepthEvery == 0) note_depth();
    return work;
  }
  [[nodiscard]] const char* name() const noexcept override { return "poll"; }

  Work receiving, other;
  uint64_t all_cycles = 0;  // the source's included
  uint64_t first_tsc = 0;
  uint64_t depth_sum = 0, depth_count = 0, depth_max = 0;

 private:
  static constexpr uint64_t kDepthEvery = 256;
  void note_depth() noexcept {
    uint64_t held = 0;
    for (const Handoff* const connection : connections_) held += connection->held();
    depth_sum += held;
    ++depth_count;
    depth_max = std::max(depth_max, held);
  }
  PollCore& core_;
  ReplayPort& port_;
  const std::vector<Handoff*> connections_;
  uint64_t turns_ = 0;
};

class TimedWorker final : public Agent {
 public:
  TimedWorker(LoaderWorker& worker, const Session& session) : worker_(worker), session_(session) {}
  uint32_t do_work(uint64_t now_ns) noexcept override {
    const uint64_t start = __rdtsc();
    const uint32_t work = worker_.do_work(now_ns);
    if (work == 0) return 0;
    const uint64_t end = __rdtsc();
    busy.busy_cycles += end - start;
    ++busy.busy_turns;
    if (end_tsc.load(std::memory_order_relaxed) == 0 &&
        (session_.moments().ram_complete.load(std::memory_order_acquire) != 0 || session_.over()))
      end_tsc.store(end, std::memory_order_release);
    return work;
  }
  [[nodiscard]] const char* name() const noexcept override { return "loader"; }

  Work busy;
  std::atomic<uint64_t> end_tsc{0};

 private:
  LoaderWorker& worker_;
  const Session& session_;
};

// The packet buffers in the order in which the loader came to them, as far as the port can tell: segments
// were made in runs of one connection, and the worker takes up to a turn's slices of one channel before it
// goes to the next.
std::vector<Slice> met_order(const ReplayPort& port, uint32_t channels) {
  const std::span<const ReplayPort::Use> uses = port.uses();
  const std::size_t most = std::size_t{2} * port.buffers_total();
  const std::size_t window = std::size_t{channels} * LoaderWorker::kSlicesPerTurn;
  std::vector<std::vector<Slice>> of_channel(channels);
  std::vector<Slice> order;
  std::size_t in_window = 0;
  const auto close_window = [&] {
    for (std::vector<Slice>& slices : of_channel) {
      order.insert(order.end(), slices.begin(), slices.end());
      slices.clear();
    }
    in_window = 0;
  };
  for (const ReplayPort::Use& use : uses.last(std::min(uses.size(), most))) {
    if (use.connection >= channels) continue;
    const Bytes payload = port.payload(use.buffer);
    of_channel[use.connection].push_back(
        {payload.data(), nullptr, static_cast<uint32_t>(payload.size()), {}});
    if (++in_window == window) close_window();
  }
  close_window();
  return order;
}

// What the worker's CPU can do at best: stores of what is in its first cache into guest RAM (not of zeros: a
// memory controller may have a shorter way for these), and the copy kernel alone, fed with nothing but the
// packet buffers of the run that is over.
class Limits final : public Agent {
 public:
  Limits(const PageKernels& kernels, const HugeRegion& guest, const ReplayPort& port, uint32_t channels)
      : kernels_(kernels), guest_(guest), met_(met_order(port, channels)) {
    for (uint32_t i = 0; i < port.buffers_total(); ++i) {
      const Bytes payload = port.payload(i);
      pool_.push_back({payload.data(), nullptr, static_cast<uint32_t>(payload.size()), {}});
    }
  }
  void on_start() override {
    alignas(kPageBytes) std::array<std::byte, kPageBytes> page;
    std::memcpy(page.data(), pool_.front().data, std::min<std::size_t>(kPageBytes, pool_.front().length));
    stores_gbs = median_rate([this, &page] {
      PageWriter writer(kernels_);
      for (std::size_t at = 0; at + kPageBytes <= guest_.size(); at += kPageBytes)
        writer.copy_page(guest_.data() + at, page.data());
      writer.fence();
      return guest_.size();
    });
    pool_gbs = median_rate([this] { return copy(pool_, 0); });
    // The best that has been found for buffers in the order of the run: nothing fetched ahead, or the first
    // lines of the next slice, or of the one after it.
    for (const uint32_t ahead : {0U, 1U, 2U})
      met_gbs = std::max(met_gbs, median_rate([this, ahead] { return copy(met_, ahead); }));
  }
  uint32_t do_work(uint64_t) noexcept override { return 0; }
  [[nodiscard]] const char* name() const noexcept override { return "limits"; }
  double stores_gbs = 0;
  double pool_gbs = 0;
  double met_gbs = 0;

 private:
  // ahead: how many slices further on lines are fetched; 0: none.
  std::size_t copy(const std::vector<Slice>& order, uint32_t ahead) const {
    PageWriter writer(kernels_);
    writer.seek(guest_.data());
    std::size_t bytes = 0;
    for (std::size_t i = 0; bytes + order[i].length <= guest_.size();) {
      if (ahead > 0) prefetch_slice(order[(i + ahead) % order.size()]);
      writer.write({order[i].data, order[i].length});
      bytes += order[i].length;
      i = i + 1 == order.size() ? 0 : i + 1;
    }
    writer.fence();
    return bytes;
  }
  template <class Pass>
  static double median_rate(const Pass& pass) {
    std::array<double, 5> rates{};
    for (double& rate : rates) {
      const uint64_t start = __rdtsc();
      const std::size_t bytes = pass();
      rate = static_cast<double>(bytes) * tsc_hz() / static_cast<double>(__rdtsc() - start) / 1e9;
    }
    std::sort(rates.begin(), rates.end());
    return rates[rates.size() / 2];
  }
  const PageKernels& kernels_;
  const HugeRegion& guest_;
  const std::vector<Slice> met_;
  std::vector<Slice> pool_;
};

// Segments behind a hole are dropped by nobody, but where no hole was made there must be none.
uint64_t dropped_by(const PollCore& core, const ReplayPort& port, bool lossy) {
  const TcpCounters& tcp = core.tcp_counters();
  const PollCounters& poll = core.counters();
  return tcp.read(TcpCounter::over_quota) + (lossy ? 0 : tcp.read(TcpCounter::out_of_order)) +
         tcp.read(TcpCounter::duplicate) + tcp.read(TcpCounter::outside_window) +
         poll.read(PollCounter::tx_dropped) + port.counters().no_buffer + port.counters().resets;
}

// The calling thread goes before ordinary ones, and the control thread before spinning agents, which it must
// stop.
void become_realtime(bool wanted, int priority) {
  const sched_param parameter{priority};
  if (wanted && sched_setscheduler(0, SCHED_FIFO, &parameter) != 0)
    throw std::runtime_error("--realtime needs the right to use SCHED_FIFO");
}
constexpr int kAgentPriority = 1;
constexpr int kControlPriority = 2;

// Wall clock by which a run that hangs is given up.
constexpr auto kPatience = std::chrono::seconds(60);

}  // namespace

double tsc_hz() {
  static const double hz = [] {
    const uint64_t ns = monotonic_ns();
    const uint64_t tsc = __rdtsc();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const uint64_t tsc_end = __rdtsc();
    return static_cast<double>(tsc_end - tsc) * 1e9 / static_cast<double>(monotonic_ns() - ns);
  }();
  return hz;
}

std::string problem_of(const PipelineOptions& options) {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (sched_getaffinity(0, sizeof usable, &usable) != 0) return "the usable CPUs cannot be asked for";
  const auto missing = [&usable](int32_t cpu) {
    return cpu >= CPU_SETSIZE || !CPU_ISSET(static_cast<std::size_t>(cpu), &usable);
  };
  const std::string have =
      ", of which the program may use " + std::to_string(CPU_COUNT(&usable)) + " CPUs here";
  if (options.loader_cores == 0) return "one loader core at least";
  if (options.loader_cores > options.channels + 1)
    return "more loader cores than connections: " + std::to_string(options.loader_cores) + " for " +
           std::to_string(options.channels + 1);
  if (options.burst == 0 || options.burst > kBurst)
    return "a burst is 1 to " + std::to_string(kBurst) +
           " frames in this program; pipeline_burst_64 takes 64";
  if (options.ipv6 && options.mtu < kIpv6MtuMin)
    return "--ipv6 with --mtu " + std::to_string(options.mtu) + ": IPv6 needs an MTU of " +
           std::to_string(kIpv6MtuMin) + " at least";
  if (options.coalesce_kib > 64) return "a frame holds 64 KiB at most";
  if (options.coalesce_kib > 0 && !options.checksum_good)
    return "--coalesce with --software-checksum: only what the port has verified is coalesced";
  if (options.drop_every == 1) return "not every segment can be lost: --drop-every 2 at least";
  if (options.poll_cpu >= 0 && missing(options.poll_cpu))
    return "there is no CPU " + std::to_string(options.poll_cpu) + " for the poll core" + have;
  if (options.one_thread) return {};
  if (options.worker_cpu < 0) return {};
  for (uint32_t i = 0; i < options.loader_cores; ++i) {
    const int32_t cpu = options.worker_cpu + static_cast<int32_t>(i);
    if (cpu == options.poll_cpu)
      return "CPU " + std::to_string(cpu) + " cannot be the poll core's and a loader's; see --one-thread";
    if (missing(cpu))
      return std::to_string(options.loader_cores) + " loader cores from CPU " +
             std::to_string(options.worker_cpu) + " on need CPU " + std::to_string(cpu) + have;
  }
  return {};
}

PipelineResult run_pipeline(const PipelineOptions& options) {
  if (const std::string wrong = problem_of(options); !wrong.empty()) throw std::invalid_argument(wrong);
  PipelineResult result;
  const double hz = tsc_hz();
  std::string problem;
  const PageKernels* const kernels = select_page_kernels(problem);
  if (kernels == nullptr) throw std::runtime_error(problem);
  const GuestPlan plan(options.channels, (uint64_t{options.guest_mib} << 20) / kPageBytes, options.rounds,
                       options.scatter);
  const HugeRegion guest(plan.guest_bytes());
  ReplayOptions replay;
  replay.mtu = options.mtu;
  replay.ipv6 = options.ipv6;
  replay.run = options.run;
  replay.checksum_good = options.checksum_good;
  replay.demote = options.demote;
  replay.burst = options.burst;
  replay.drop_every = options.drop_every;
  replay.coalesce_bytes = options.coalesce_kib << 10;
  const PoolPlan pool = plan_pool(options.mtu, options.pool_mib, options.channels, options.drop_every);
  replay.buffers = result.buffers = pool.buffers;
  result.quota = pool.quota;
  result.pages = guest.pages();

  ReplayPort port(replay, plan);
  Receiver receiver(options.mtu, plan, port, *kernels, guest, pool.quota, options.loader_cores);
  AgentThreadOptions poll_thread, worker_thread;
  const int32_t worker_cpu = options.one_thread ? options.poll_cpu : options.worker_cpu;
  if (options.poll_cpu >= 0) poll_thread.cpu = CpuId{options.poll_cpu};
  if (worker_cpu >= 0) worker_thread.cpu = CpuId{worker_cpu};
  become_realtime(options.realtime, kControlPriority);
  poll_thread.enter = worker_thread.enter = [&options] { become_realtime(options.realtime, kAgentPriority); };
  poll_thread.idle = worker_thread.idle = IdleStrategy::spin;
  // Connections are set up before the clock runs.
  constexpr uint64_t kTurnsToConnect = 10'000'000;
  if (!receiver.connect(port, kTurnsToConnect)) {
    result.problem = receiver.failed() ? receiver.session->error().text.data()
                                       : "no connection: " + receiver.session->standing();
    return result;
  }
  port.reset_counters();
  port.open_gate();

  TimedPoll poll(*receiver.core, port, receiver.connections);
  std::vector<std::unique_ptr<TimedWorker>> workers;
  for (const auto& worker : receiver.workers)
    workers.push_back(std::make_unique<TimedWorker>(*worker, *receiver.session));
  // When RAM was complete, as the first worker saw it; 0: not yet.
  const auto end_tsc = [&workers] {
    uint64_t end = 0;
    for (const auto& worker : workers) {
      const uint64_t seen = worker->end_tsc.load(std::memory_order_acquire);
      if (seen != 0 && (end == 0 || seen < end)) end = seen;
    }
    return end;
  };
  {
    std::vector<Agent*> first{&poll};
    std::vector<std::unique_ptr<AgentThread>> threads;
    for (uint32_t i = 0; i < workers.size(); ++i) {
      if (options.one_thread) {
        first.push_back(workers[i].get());
        continue;
      }
      AgentThreadOptions own = worker_thread;
      if (worker_cpu >= 0) own.cpu = CpuId{worker_cpu + static_cast<int32_t>(i)};
      threads.push_back(std::make_unique<AgentThread>(std::vector<Agent*>{workers[i].get()}, own));
      threads.back()->start();
    }
    AgentThread a(first, poll_thread);
    a.start();
    const auto give_up = std::chrono::steady_clock::now() + kPatience;
    while (end_tsc() == 0 && std::chrono::steady_clock::now() < give_up)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    a.stop();
    for (const auto& thread : threads) thread->stop();
  }
  // The end of the stream, outside of the clock.
  for (uint32_t i = 0; i < 100'000 && !receiver.control->over() && !receiver.failed(); ++i) receiver.turn();

  const ReplayPort::Counters& source = port.counters();
  result.dropped = dropped_by(*receiver.core, port, options.drop_every > 0);
  if (receiver.failed())
    result.problem = receiver.session->error().text.data();
  else if (!receiver.accepted())
    result.problem = "it did not come to an end: " + receiver.session->standing();
  else
    result.problem = check_guest(plan, port, guest.data());
  if (result.problem.empty() && result.dropped > 0)
    result.problem = std::to_string(result.dropped) + " segments or ACKs were dropped";
  receiver.close();
  if (result.problem.empty() && port.buffers_available() != port.buffers_total())
    result.problem = "packet buffers were lost";

  const auto per = [](uint64_t a, uint64_t b) {
    return b == 0 ? 0.0 : static_cast<double>(a) / static_cast<double>(b);
  };
  if (result.problem.empty()) {  // guest RAM has been compared: now others may write to it
    Limits limits(*kernels, guest, port, options.channels);
    AgentThread thread({&limits}, worker_thread);
    thread.start();
    thread.stop();
    result.nt_limit_gbs = limits.stores_gbs;
    result.copy_limit_gbs = limits.pool_gbs;
    result.met_limit_gbs = limits.met_gbs;
  }
  if (result.problem.empty() && source.resent != source.lost)
    result.problem = std::to_string(source.lost - source.resent) + " lost segments were not sent again";
  const uint64_t cycles = end_tsc() - poll.first_tsc;
  uint64_t loader_cycles = 0;
  for (const auto& worker : workers) loader_cycles += worker->busy.busy_cycles;
  const double guest_bytes = static_cast<double>(plan.guest_bytes()) * options.rounds;
  result.seconds = static_cast<double>(cycles) / hz;
  result.segments = static_cast<double>(source.segments);
  result.lost = static_cast<double>(source.lost);
  result.timeouts = static_cast<double>(source.timeouts);
  result.out_of_order = static_cast<double>(receiver.core->tcp_counters().read(TcpCounter::out_of_order));
  result.ram_gbs = guest_bytes / result.seconds / 1e9;
  result.wire_gbs = static_cast<double>(source.wire_bytes) / result.seconds / 1e9;
  result.loader_bytes_cycle = guest_bytes / static_cast<double>(std::max<uint64_t>(loader_cycles, 1));
  result.loader_gbs = result.loader_bytes_cycle * hz / 1e9;
  result.loader_ratio = result.loader_gbs / result.nt_limit_gbs;
  result.loader_copy_ratio = result.loader_gbs / result.met_limit_gbs;
  result.loader_busy = per(loader_cycles, cycles * workers.size());
  result.poll_cycles = per(poll.receiving.busy_cycles, source.segments);
  result.poll_all_cycles = per(poll.receiving.busy_cycles + poll.other.busy_cycles, source.segments);
  result.poll_frame_cycles = per(poll.receiving.busy_cycles, source.frames);
  result.poll_busy = per(poll.all_cycles, cycles);
  result.source_cycles = per(source.busy_source_cycles, source.segments);
  result.burst = per(source.segments, poll.receiving.busy_turns);
  result.acks_per_segment = per(source.acks, source.segments);
  result.ring_mean = per(poll.depth_sum, poll.depth_count);
  result.ring_max = static_cast<double>(poll.depth_max);
  const uint64_t both = poll.receiving.busy_cycles + poll.other.busy_cycles + loader_cycles;
  result.one_core_gbs = guest_bytes * hz / static_cast<double>(std::max<uint64_t>(both, 1)) / 1e9;
  return result;
}

}  // namespace migrx::bench

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

#include "bench/pipeline/guest_plan.h"
#include "bench/pipeline/replay_check.h"
#include "bench/pipeline/replay_port.h"
#include "dataplane/agent_thread.h"
#include "dataplane/poll_core.h"
#include "loader/handoff/device_state_file.h"
#include "loader/main/compress_jobs.h"
#include "loader/session/session.h"
#include "loader/session/session_control.h"

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

// What the worker's CPU can do at best: stores from registers into guest RAM, and the same copy kernel fed
// with nothing but the packet buffers in their order.
class Limits final : public Agent {
 public:
  Limits(const PageKernels& kernels, const HugeRegion& guest, const ReplayPort& port)
      : kernels_(kernels), guest_(guest), port_(port) {}
  void on_start() override {
    stores_gbs = median_rate([this] {
      kernels_.clear(guest_.data(), guest_.size());
      kernels_.fence();
      return guest_.size();
    });
    copy_gbs = median_rate([this] {
      PageWriter writer(kernels_);
      writer.seek(guest_.data());
      std::size_t bytes = 0;
      for (uint32_t i = 0; bytes + port_.segment_bytes() <= guest_.size(); bytes += port_.segment_bytes()) {
        writer.write(port_.payload(i));
        i = i + 1 == port_.buffers_total() ? 0 : i + 1;
      }
      writer.fence();
      return bytes;
    });
  }
  uint32_t do_work(uint64_t) noexcept override { return 0; }
  [[nodiscard]] const char* name() const noexcept override { return "limits"; }
  double stores_gbs = 0;
  double copy_gbs = 0;

 private:
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
  const ReplayPort& port_;
};

struct Receiver {
  Receiver(const PipelineOptions& options, const GuestPlan& plan, ReplayPort& port,
           const PageKernels& kernels, const HugeRegion& guest, uint32_t quota)
      : worker(plan.channels() + 1), compress(0, 4, kernels) {
    PollCoreConfig config;
    config.ports = {{&port, ReplayPort::kReceiver, PollPort::kAnyVlan}};
    config.connections_max = plan.channels() + 1;
    config.handoff_slots = quota;
    config.tcp.mss = static_cast<uint16_t>(options.mtu - 40);
    config.tcp.buffer_bytes = port.buffer_bytes();
    config.listener.port = ReplayPort::kListenPort;
    config.announce = false;
    core = std::make_unique<PollCore>(config);
    blocks.list().add(
        std::make_unique<RamBlock>(kBlockName, guest.data(), plan.guest_bytes(), true, true, kAnyNode));
    SessionSettings settings;
    settings.main.multifd_channels = plan.channels();
    settings.connections_max = plan.channels() + 1;
    settings.now_ns = [] { return monotonic_ns(); };
    session = std::make_unique<Session>(settings, blocks, destination.events(), kernels, compress);
    control = std::make_unique<SessionControl>(
        *session, destination,
        [this]() -> Handoff* {
          Handoff* const connection = core->take_accepted();
          if (connection != nullptr) connections.push_back(connection);
          return connection;
        },
        std::vector<LoaderWorker*>{&worker}, SessionLimits{}, /*switchover_ack=*/false);
  }
  // One turn of everybody on the calling thread.
  void turn() {
    const uint64_t now_ns = monotonic_ns();
    core->do_work(now_ns);
    worker.do_work(now_ns);
    control->do_work(now_ns);
  }
  [[nodiscard]] bool failed() const { return session->state() == SessionState::failed; }

  BlockTable blocks{1 << 20};
  DeviceStateFile destination{""};
  LoaderWorker worker;
  CompressJobs compress;
  std::unique_ptr<PollCore> core;
  std::unique_ptr<Session> session;
  std::unique_ptr<SessionControl> control;
  std::vector<Handoff*> connections;
};

uint64_t dropped_by(const PollCore& core, const ReplayPort& port) {
  const TcpCounters& tcp = core.tcp_counters();
  const PollCounters& poll = core.counters();
  return tcp.read(TcpCounter::over_quota) + tcp.read(TcpCounter::out_of_order) +
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

PipelineResult run_pipeline(const PipelineOptions& options) {
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
  replay.run = options.run;
  replay.checksum_good = options.checksum_good;
  replay.demote = options.demote;
  // Of the pool, a burst and what waits to be freed stay out of the connections' promises.
  constexpr uint32_t kSpare = 2 * kBurst + 256 + 128;
  const uint32_t stride = ReplayPort::stride_of(options.mtu);
  const auto fit = static_cast<uint32_t>((uint64_t{options.pool_mib} << 20) / stride);
  const uint32_t fair = fit > kSpare ? (fit - kSpare) / (options.channels + 1) : 0;
  TcpConfig tcp;
  tcp.mss = static_cast<uint16_t>(options.mtu - 40);
  tcp.buffer_bytes = ReplayPort::buffer_bytes_of(options.mtu);
  // Enough to open TCP's window of 4 MiB is enough.
  const uint32_t most = tcp.window_bytes / ReplayPort::segment_bytes_of(options.mtu) + 64;
  const uint32_t quota = std::max(std::min(fair, most), buffer_quota_min(tcp));
  replay.buffers = std::max(fit, kSpare + (options.channels + 1) * quota);
  result.buffers = replay.buffers;
  result.quota = quota;
  result.pages = guest.pages();

  ReplayPort port(replay, plan);
  Receiver receiver(options, plan, port, *kernels, guest, quota);
  AgentThreadOptions poll_thread, worker_thread;
  const int32_t worker_cpu = options.one_thread ? options.poll_cpu : options.worker_cpu;
  if (options.poll_cpu >= 0) poll_thread.cpu = CpuId{options.poll_cpu};
  if (worker_cpu >= 0) worker_thread.cpu = CpuId{worker_cpu};
  become_realtime(options.realtime, kControlPriority);
  poll_thread.enter = worker_thread.enter = [&options] { become_realtime(options.realtime, kAgentPriority); };
  poll_thread.idle = worker_thread.idle = IdleStrategy::spin;
  {
    Limits limits(*kernels, guest, port);
    AgentThread thread({&limits}, worker_thread);
    thread.start();
    thread.stop();
    result.nt_limit_gbs = limits.stores_gbs;
    result.copy_limit_gbs = limits.copy_gbs;
  }

  // Connections are set up before the clock runs.
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  const auto late = [give_up] { return std::chrono::steady_clock::now() > give_up; };
  while ((!port.at_gate() || receiver.session->multifd_identified() < options.channels ||
          receiver.session->main_connection() == nullptr) &&
         !receiver.failed() && !late())
    receiver.turn();
  port.reset_counters();
  port.open_gate();

  TimedPoll poll(*receiver.core, port, receiver.connections);
  TimedWorker worker(receiver.worker, *receiver.session);
  {
    std::vector<Agent*> first{&poll}, second{&worker};
    if (options.one_thread) first.push_back(&worker);
    AgentThread a(first, poll_thread);
    AgentThread b(second, worker_thread);
    if (!options.one_thread) b.start();
    a.start();
    while (worker.end_tsc.load(std::memory_order_acquire) == 0 && !late())
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    a.stop();
    b.stop();
  }
  // The end of the stream, outside of the clock.
  for (uint32_t i = 0; i < 100'000 && !receiver.control->over() && !receiver.failed(); ++i) receiver.turn();

  const ReplayPort::Counters& source = port.counters();
  result.dropped = dropped_by(*receiver.core, port);
  if (receiver.failed())
    result.problem = receiver.session->error().text.data();
  else if (!receiver.control->over() || receiver.destination.verdict() != Verdict::accepted)
    result.problem = "it did not come to an end: " + receiver.session->standing();
  else
    result.problem = check_guest(plan, port, guest.data());
  if (result.problem.empty() && result.dropped > 0)
    result.problem = std::to_string(result.dropped) + " segments or ACKs were dropped";
  for (Handoff* const connection : receiver.connections) connection->retire();
  receiver.core->on_stop();
  if (result.problem.empty() && port.buffers_available() != port.buffers_total())
    result.problem = "packet buffers were lost";

  const auto per = [](uint64_t a, uint64_t b) {
    return b == 0 ? 0.0 : static_cast<double>(a) / static_cast<double>(b);
  };
  const uint64_t cycles = worker.end_tsc.load() - poll.first_tsc;
  const double guest_bytes = static_cast<double>(plan.guest_bytes()) * options.rounds;
  result.seconds = static_cast<double>(cycles) / hz;
  result.segments = static_cast<double>(source.segments);
  result.ram_gbs = guest_bytes / result.seconds / 1e9;
  result.wire_gbs = static_cast<double>(source.wire_bytes) / result.seconds / 1e9;
  result.loader_bytes_cycle =
      guest_bytes / static_cast<double>(std::max<uint64_t>(worker.busy.busy_cycles, 1));
  result.loader_gbs = result.loader_bytes_cycle * hz / 1e9;
  result.loader_ratio = result.loader_gbs / result.nt_limit_gbs;
  result.loader_copy_ratio = result.loader_gbs / result.copy_limit_gbs;
  result.loader_busy = per(worker.busy.busy_cycles, cycles);
  result.poll_cycles = per(poll.receiving.busy_cycles, source.segments);
  result.poll_all_cycles = per(poll.receiving.busy_cycles + poll.other.busy_cycles, source.segments);
  result.poll_busy = per(poll.all_cycles, cycles);
  result.source_cycles = per(source.busy_source_cycles, source.segments);
  result.burst = per(source.segments, poll.receiving.busy_turns);
  result.acks_per_segment = per(source.acks, source.segments);
  result.ring_mean = per(poll.depth_sum, poll.depth_count);
  result.ring_max = static_cast<double>(poll.depth_max);
  const uint64_t both = poll.receiving.busy_cycles + poll.other.busy_cycles + worker.busy.busy_cycles;
  result.one_core_gbs = guest_bytes * hz / static_cast<double>(std::max<uint64_t>(both, 1)) / 1e9;
  return result;
}

}  // namespace migrx::bench

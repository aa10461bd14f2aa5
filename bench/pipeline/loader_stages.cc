#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "bench/pipeline/receiver.h"
#include "bench/pipeline/replay_check.h"
#include "bench/pipeline/stage_timing.h"
#include "bench/pipeline/stages.h"
#include "dataplane/agent_thread.h"
#include "numa/clock.h"

namespace migrx::bench {
namespace {

constexpr uint64_t kGuestPages = 16'384;

uint32_t rounds_for(const StageOptions& options) {
  const uint64_t bytes = uint64_t{options.segments} * ReplayPort::segment_bytes_of(options.mtu, false);
  return static_cast<uint32_t>(bytes / (kGuestPages * kPageBytes)) + 1;
}

// Page kernels that write nothing: what is left is finding out where every byte goes.
const PageKernels& no_stores() {
  static constexpr PageKernels kKernels{
      "none",
      [](LineWriter& writer, const std::byte*, std::size_t n) noexcept {
        const std::size_t all = writer.fill + n;
        writer.dst += all / kLineBytes * kLineBytes;
        writer.fill = all % kLineBytes;
      },
      [](std::byte*, std::size_t) noexcept {},
      [](const std::byte*, std::size_t) noexcept { return true; },
      []() noexcept {},
  };
  return kKernels;
}

// Takes whatever comes.
class Swallow final : public ChannelParser {
 public:
  ParseResult parse(Bytes piece) noexcept override {
    bytes_ += piece.size();
    return {piece.size(), ParseStatus::need_more};
  }
  [[nodiscard]] bool ready() noexcept override { return true; }
  StreamError end_of_stream() noexcept override { return {}; }
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  [[nodiscard]] uint64_t offset() const noexcept override { return bytes_; }

 private:
  uint64_t bytes_ = 0;
  StreamError error_;
};

class SwallowAll final : public ChannelDirectory {
 public:
  explicit SwallowAll(uint32_t channels) : parsers_(channels) {}
  Introduction identify(Bytes, Handoff&, uint32_t) noexcept override {
    return used_ < parsers_.size() ? Introduction::as(parsers_[used_++]) : Introduction{};
  }
  void channel_failed(const StreamError&) noexcept override { failed_ = true; }
  [[nodiscard]] bool over() const noexcept override { return false; }
  [[nodiscard]] bool failed() const noexcept { return failed_; }
  [[nodiscard]] uint64_t bytes() const noexcept {
    uint64_t sum = 0;
    for (const Swallow& parser : parsers_) sum += parser.offset();
    return sum;
  }

 private:
  std::vector<Swallow> parsers_;
  std::size_t used_ = 0;
  bool failed_ = false;
};

// The poll core on a thread of its own, or between the worker's turns.
class Polling {
 public:
  Polling(PollCore& core, int32_t cpu) : core_(core), own_thread_(cpu >= 0) {
    if (own_thread_)
      thread_ = std::thread([this, cpu] {
        pin_to(cpu);
        while (!stop_.load(std::memory_order_acquire)) core_.do_work(monotonic_ns());
      });
  }
  ~Polling() { end(); }
  Polling(const Polling&) = delete;
  Polling& operator=(const Polling&) = delete;
  void between_turns() noexcept {
    if (!own_thread_) core_.do_work(monotonic_ns());
  }
  void end() noexcept {
    stop_.store(true, std::memory_order_release);
    if (thread_.joinable()) thread_.join();
  }

 private:
  PollCore& core_;
  const bool own_thread_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

constexpr uint64_t kPatienceNs = 30'000'000'000;

// Cycles of the worker's turns that did something, per segment of the source, until `done`.
double measure(PollCore& core, LoaderWorker& worker, const ReplayPort& port, const StageOptions& options,
               const std::function<bool()>& done, std::string& problem) {
  uint64_t cycles = 0;
  {
    Polling polling(core, options.other_cpu);
    const uint64_t give_up_ns = monotonic_ns() + kPatienceNs;
    for (uint64_t now_ns = 0; !done();) {
      polling.between_turns();
      now_ns = monotonic_ns();
      const uint64_t start = __rdtsc();
      const uint32_t work = worker.do_work(now_ns);
      if (work > 0) cycles += __rdtsc() - start;
      if (now_ns > give_up_ns) {
        problem = "the stream did not come to its end";
        break;
      }
    }
  }
  return static_cast<double>(cycles) / static_cast<double>(std::max<uint64_t>(port.counters().segments, 1));
}

ReplayOptions replay_for(const StageOptions& options, const PoolPlan& pool) {
  ReplayOptions replay;
  replay.mtu = options.mtu;
  replay.buffers = pool.buffers;
  replay.run = options.run;
  replay.checksum_good = options.checksum_good;
  replay.demote = options.demote;
  replay.burst = options.burst;
  return replay;
}

double retire(const StageOptions& options, std::string& problem) {
  const PoolPlan pool = plan_pool(options.mtu, options.pool_mib, options.channels, 0);
  const GuestPlan plan(options.channels, kGuestPages, rounds_for(options), false);
  ReplayPort port(replay_for(options, pool), plan);
  Tenant tenant{{.port = ReplayPort::kListenPort}};
  PollCore core(poll_core_config(port, options.mtu, options.channels, pool.quota));
  core.request({TenantChange::Kind::open, &tenant});
  LoaderWorker worker(port.connections());
  SwallowAll directory(port.connections());
  std::vector<std::unique_ptr<Channel>> channels;
  const auto turn = [&] {
    core.do_work(monotonic_ns());
    if (Handoff* const accepted = core.take_accepted(); accepted != nullptr) {
      channels.push_back(std::make_unique<Channel>(*accepted, directory, 0));
      if (!worker.attach(*channels.back())) throw std::logic_error("no room for a channel");
    }
    worker.do_work(0);
  };
  while (!port.at_gate() || channels.size() < port.connections()) turn();
  uint64_t wanted = plan.main_stream().size();
  for (uint32_t i = 0; i < options.channels; ++i) wanted += plan.stream_bytes(i);
  port.reset_counters();
  port.open_gate();
  const double cycles = measure(
      core, worker, port, options, [&] { return directory.bytes() >= wanted || directory.failed(); },
      problem);
  if (directory.bytes() != wanted && problem.empty())
    problem = std::to_string(directory.bytes()) + " bytes came of " + std::to_string(wanted);
  for (const auto& channel : channels) {
    channel->connection().detach();
    channel->connection().retire();
  }
  core.on_stop();
  return cycles;
}

double load(const StageOptions& options, const PageKernels& kernels, bool written, std::string& problem) {
  const PoolPlan pool = plan_pool(options.mtu, options.pool_mib, options.channels, 0);
  const GuestPlan plan(options.channels, kGuestPages, rounds_for(options), false);
  const HugeRegion guest(plan.guest_bytes());
  ReplayPort port(replay_for(options, pool), plan);
  Receiver receiver(options.mtu, plan, port, kernels, guest, pool.quota, 1);
  constexpr uint64_t kTurnsMax = 10'000'000;
  if (!receiver.connect(port, kTurnsMax)) {
    problem = "no connection: " + receiver.session->standing();
    return 0;
  }
  port.reset_counters();
  port.open_gate();
  const double cycles = measure(
      *receiver.core, *receiver.workers.front(), port, options,
      [&receiver] {
        return receiver.session->moments().ram_complete.load(std::memory_order_acquire) != 0 ||
               receiver.session->over();
      },
      problem);
  for (uint32_t i = 0; i < 100'000 && !receiver.control->over() && !receiver.failed(); ++i) receiver.turn();
  if (problem.empty() && !receiver.accepted()) problem = "it did not come to an end";
  if (problem.empty() && written) problem = check_guest(plan, port, guest.data());
  receiver.close();
  return cycles;
}

}  // namespace

StageResult run_loader_stages(const StageOptions& options) {
  pin_to(options.cpu);
  StageResult result;
  const PageKernels* const kernels = select_page_kernels(result.problem);
  if (kernels == nullptr) return result;
  result.problem.clear();
  result.rungs = {
      {"retire", "slices taken from the ring and given back, turn by turn", {}},
      {"parse", "packet headers checked, every byte's place found; nothing is written", {}},
      {"copy", "page bytes written to guest RAM", {}},
  };
  for (uint32_t i = 0; i < options.repetitions && result.problem.empty(); ++i) {
    result.rungs[0].cycles.push_back(retire(options, result.problem));
    if (result.problem.empty())
      result.rungs[1].cycles.push_back(load(options, no_stores(), false, result.problem));
    if (result.problem.empty())
      result.rungs[2].cycles.push_back(load(options, *kernels, true, result.problem));
  }
  return result;
}

}  // namespace migrx::bench

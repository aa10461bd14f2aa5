// bench/barrier: what the flush barrier takes between two workers, beside what the machine takes from two
// threads that do nothing.
//
//   build/bench/barrier [--cpus MAIN LOADER] [--seconds N] [--realtime] [--yield] [--json FILE]
//
// One thread plays main's worker, the other the worker of all multifd channels: main's marker, SYNC of every
// channel, release, until every channel has gone on. Both spin, each on a CPU of its own. In turns with that,
// a few ms each, both spin without a purpose and note every gap in their time: interruptions, other
// programs, the hypervisor. An episode of the barrier is lengthened by them just as a spinner is, so their
// histogram says which share of the episodes is bound to be disturbed, whatever the barrier does.
//
// --yield gives the CPU away while waiting: for tests, where two free CPUs may not be there. It measures
// the scheduler, then.
#include <sched.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "loader/stream/flush_barrier.h"
#include "numa/clock.h"

namespace migrx::bench {
namespace {

struct Options {
  std::array<int32_t, 2> cpus{0, 1};
  double seconds = 2;  // of each number of channels
  bool realtime = false;
  bool yield = false;
  std::string json;
};

double tsc_hz() {
  const uint64_t ns = monotonic_ns(), tsc = __rdtsc();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  return static_cast<double>(__rdtsc() - tsc) * 1e9 / static_cast<double>(monotonic_ns() - ns);
}

// Gaps of a thread that only looks at the time.
struct Stalls {
  // Upper bounds in ns; what is shorter than the first is the loop itself.
  static constexpr std::array<uint64_t, 6> kBounds{1'000, 3'000, 10'000, 100'000, 1'000'000, UINT64_MAX};
  std::array<uint64_t, kBounds.size()> count{};
  std::array<double, kBounds.size()> ns{};
  double all_ns = 0;

  void spin(uint64_t cycles, double ns_per_cycle) noexcept {
    const uint64_t begin = __rdtsc();
    for (uint64_t last = begin; last - begin < cycles;) {
      const uint64_t now = __rdtsc();
      const double gap = static_cast<double>(now - last) * ns_per_cycle;
      last = now;
      if (gap < static_cast<double>(kBounds[0])) continue;
      std::size_t i = 1;
      while (gap >= static_cast<double>(kBounds[i])) ++i;
      ++count[i];
      ns[i] += gap;
    }
    all_ns += static_cast<double>(__rdtsc() - begin) * ns_per_cycle;
  }
  // Of pieces of work that take `window_ns` undisturbed, one behind the other, those that a stall falls into.
  [[nodiscard]] double disturbed(double window_ns) const noexcept {
    double stalls = 0;
    for (std::size_t i = 1; i < count.size(); ++i) stalls += static_cast<double>(count[i]);
    return std::min(1.0, stalls / pieces(window_ns));
  }
  [[nodiscard]] double share() const noexcept {
    double sum = 0;
    for (const double each : ns) sum += each;
    return all_ns == 0 ? 0 : sum / all_ns;
  }
  // How long the piece at `quantile` takes: by itself, or with a stall of the mean length of its kind.
  [[nodiscard]] double quantile(double window_ns, double quantile) const noexcept {
    double behind = pieces(window_ns) * (1 - quantile);
    for (std::size_t i = count.size(); i-- > 1;) {
      if (static_cast<double>(count[i]) > behind) return window_ns + ns[i] / static_cast<double>(count[i]);
      behind -= static_cast<double>(count[i]);
    }
    return window_ns;
  }

 private:
  [[nodiscard]] double pieces(double window_ns) const noexcept {
    return std::max(1.0, all_ns * (1 - share()) / window_ns);
  }
};

struct Row {
  uint32_t channels = 0;  // 0: a bare word there and back
  uint64_t episodes = 0;
  double p50 = 0, p99 = 0, p999 = 0, max = 0;  // ns
  std::array<Stalls, 2> stalls;                // main's CPU, the loader's
};

// What main tells the other thread: a number that goes up, and what to do.
enum class Order : uint64_t { episode, spin, stop };
constexpr uint64_t order_word(uint64_t number, Order order) {
  return number << 2 | static_cast<uint64_t>(order);
}

class Measurement {
 public:
  Measurement(const Options& options, uint32_t channels, double hz)
      : options_(options), channels_(channels), ns_per_cycle_(1e9 / hz), barrier_(std::max(channels, 1U)) {
    slice_cycles_ = static_cast<uint64_t>(hz * 2e-3);
    cycles_.reserve(8U << 20);
  }

  Row run() {
    std::thread loader([this] {
      enter(1);
      serve();
    });
    // A thread of its own as well: the next loader would inherit its CPU and priority, and never run.
    std::thread main([this] {
      enter(0);
      command();
    });
    main.join();
    loader.join();
    const uint64_t passed = epoch_;
    if (channels_ > 0 && barrier_.epochs_released() != passed) throw std::runtime_error("an epoch was lost");
    summarize();
    return row_;
  }

 private:
  void enter(std::size_t side) const {
    if (!options_.yield) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(static_cast<std::size_t>(options_.cpus[side]), &set);
      if (sched_setaffinity(0, sizeof set, &set) != 0) std::abort();  // checked by main()
    }
    const sched_param parameter{1};
    if (options_.realtime && sched_setscheduler(0, SCHED_FIFO, &parameter) != 0) std::abort();
  }
  template <class Until>
  void wait(const Until& until) const noexcept {
    for (uint32_t i = 1; !until(); ++i)
      if (options_.yield && i % 64 == 0) sched_yield();
  }
  void give(Order order) noexcept { order_.store(order_word(++number_, order), std::memory_order_release); }

  void command() noexcept {
    const auto slices = std::max<uint64_t>(1, static_cast<uint64_t>(options_.seconds / 4e-3));
    for (uint64_t slice = 0; slice < slices; ++slice) {
      give(Order::spin);
      row_.stalls[0].spin(slice_cycles_, ns_per_cycle_);
      wait([this] { return done_.load(std::memory_order_acquire) == number_; });
      const uint64_t begin = __rdtsc();
      while (__rdtsc() - begin < slice_cycles_) episode();
    }
    give(Order::stop);
  }
  void episode() noexcept {
    const uint64_t start = __rdtsc();
    give(Order::episode);
    if (channels_ > 0) {
      wait([this] { return barrier_.all_arrived(Epoch{epoch_}); });
      barrier_.release(Epoch{epoch_});
    }
    wait([this] { return done_.load(std::memory_order_acquire) == number_; });
    const uint64_t spent = __rdtsc() - start;
    if (cycles_.size() < cycles_.capacity()) cycles_.push_back(spent);
    ++epoch_;
  }

  // The other thread.
  void serve() noexcept {
    uint64_t epoch = 0;
    for (uint64_t number = 1;; ++number) {
      uint64_t word = 0;
      wait([this, number, &word] {
        word = order_.load(std::memory_order_acquire);
        return word >> 2 == number;
      });
      const auto order = static_cast<Order>(word & 3);
      if (order == Order::stop) return;
      if (order == Order::spin) {
        row_.stalls[1].spin(slice_cycles_, ns_per_cycle_);
      } else {
        for (uint32_t i = 0; i < channels_; ++i) barrier_.arrive(MultifdId{i}, Epoch{epoch});
        if (channels_ > 0)
          for (uint32_t i = 0; i < channels_; ++i)
            wait([this, epoch] { return barrier_.released(Epoch{epoch}); });
        ++epoch;
      }
      done_.store(number, std::memory_order_release);
    }
  }

  void summarize() {
    std::sort(cycles_.begin(), cycles_.end());
    const auto at = [this](double share) {
      const auto i = static_cast<std::size_t>(share * static_cast<double>(cycles_.size() - 1));
      return static_cast<double>(cycles_[i]) * ns_per_cycle_;
    };
    row_.channels = channels_;
    row_.episodes = epoch_;
    row_.p50 = at(0.5);
    row_.p99 = at(0.99);
    row_.p999 = at(0.999);
    row_.max = at(1);
  }

  const Options& options_;
  const uint32_t channels_;
  const double ns_per_cycle_;
  uint64_t slice_cycles_ = 0;
  FlushBarrier barrier_;
  std::vector<uint64_t> cycles_;
  uint64_t number_ = 0, epoch_ = 0;
  Row row_;
  alignas(128) std::atomic<uint64_t> order_{0};
  alignas(128) std::atomic<uint64_t> done_{0};
};

// An episode waits for either side, so it meets the stalls of both.
double disturbed(const Row& row) {
  return std::min(1.0, row.stalls[0].disturbed(row.p50) + row.stalls[1].disturbed(row.p50));
}
double spinner_at(const Row& row, double quantile) {
  const double half = 1 - (1 - quantile) / 2;
  return std::max(row.stalls[0].quantile(row.p50, half), row.stalls[1].quantile(row.p50, half));
}

void print(const std::vector<Row>& rows) {
  std::printf("%8s %10s %9s %9s %9s %9s | spinners in its place: %9s %9s %10s %10s\n", "channels", "episodes",
              "p50 us", "p99 us", "p99.9 us", "max us", "p99 us", "p99.9 us", "disturbed", "time gone");
  for (const Row& row : rows)
    std::printf("%8u %10llu %9.2f %9.2f %9.2f %9.1f | %33.2f %9.2f %9.2f%% %9.2f%%\n", row.channels,
                static_cast<unsigned long long>(row.episodes), row.p50 / 1e3, row.p99 / 1e3, row.p999 / 1e3,
                row.max / 1e3, spinner_at(row, 0.99) / 1e3, spinner_at(row, 0.999) / 1e3,
                100 * disturbed(row), 100 * std::max(row.stalls[0].share(), row.stalls[1].share()));
  std::printf("\nstalls of the no-op spinners, per second: 1-3 us, 3-10, 10-100, 100-1000, longer\n");
  for (const Row& row : rows)
    for (std::size_t side = 0; side < 2; ++side) {
      const Stalls& s = row.stalls[side];
      std::printf("%8u %-7s", row.channels, side == 0 ? "main" : "loader");
      for (std::size_t i = 1; i < s.count.size(); ++i)
        std::printf(" %9.1f", static_cast<double>(s.count[i]) * 1e9 / s.all_ns);
      std::printf("\n");
    }
}

void write_json(const Options& options, const std::vector<Row>& rows) {
  std::FILE* const file = std::fopen(options.json.c_str(), "w");
  if (file == nullptr) throw std::runtime_error("cannot write " + options.json);
  std::fprintf(file, "{\"bench\": \"barrier\", \"yield\": %s, \"realtime\": %s, \"rows\": [",
               options.yield ? "true" : "false", options.realtime ? "true" : "false");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    std::fprintf(
        file,
        "%s\n {\"channels\": %u, \"episodes\": %llu, \"p50_ns\": %.1f, \"p99_ns\": %.1f, \"p999_ns\": "
        "%.1f, \"max_ns\": %.1f, \"disturbed_share\": %.6f, \"spinner_p99_ns\": %.1f, \"spinner_p999_ns\": "
        "%.1f, \"stalls\": [",
        i == 0 ? "" : ",", row.channels, static_cast<unsigned long long>(row.episodes), row.p50, row.p99,
        row.p999, row.max, disturbed(row), spinner_at(row, 0.99), spinner_at(row, 0.999));
    for (std::size_t side = 0; side < 2; ++side) {
      const Stalls& s = row.stalls[side];
      std::fprintf(
          file,
          "%s{\"cpu_of\": \"%s\", \"seconds\": %.4f, \"share\": %.6f, \"bounds_us\": [1, 3, 10, 100, 1000], "
          "\"count\": [",
          side == 0 ? "" : ", ", side == 0 ? "main" : "loader", s.all_ns / 1e9, s.share());
      for (std::size_t k = 1; k < s.count.size(); ++k)
        std::fprintf(file, "%s%llu", k == 1 ? "" : ", ", static_cast<unsigned long long>(s.count[k]));
      std::fprintf(file, "]}");
    }
    std::fprintf(file, "]}");
  }
  std::fprintf(file, "]}\n");
  if (std::fclose(file) != 0) throw std::runtime_error("cannot write " + options.json);
}

Options parse(int argc, char** argv) {
  Options options;
  const auto wrong = [](const std::string& what) {
    throw std::runtime_error(
        what + "\nusage: barrier [--cpus MAIN LOADER] [--seconds N] [--realtime] [--yield] [--json FILE]");
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--yield")
      options.yield = true;
    else if (option == "--realtime")
      options.realtime = true;
    else if (option == "--cpus" && i + 2 < argc)
      for (int32_t& cpu : options.cpus) cpu = static_cast<int32_t>(std::strtol(argv[++i], nullptr, 10));
    else if (option == "--seconds" && i + 1 < argc)
      options.seconds = std::strtod(argv[++i], nullptr);
    else if (option == "--json" && i + 1 < argc)
      options.json = argv[++i];
    else
      wrong("unknown or incomplete option " + std::string(option));
  }
  if (!(options.seconds > 0 && options.seconds <= 3600)) wrong("--seconds is more than 0 and at most 3600");
  if (options.yield) return options;
  if (options.cpus[0] == options.cpus[1]) wrong("two spinners need two CPUs; --yield shares one");
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (sched_getaffinity(0, sizeof usable, &usable) != 0) wrong("the usable CPUs cannot be asked for");
  for (const int32_t cpu : options.cpus)
    if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(static_cast<std::size_t>(cpu), &usable))
      wrong("there is no CPU " + std::to_string(cpu) + " for this program; --yield does without");
  return options;
}

}  // namespace
}  // namespace migrx::bench

int main(int argc, char** argv) {
  using namespace migrx::bench;
  try {
    const Options options = parse(argc, argv);
    const double hz = tsc_hz();
    std::vector<Row> rows;
    for (const uint32_t channels : {0U, 2U, 4U, 8U, 16U, 32U, 64U})
      rows.push_back(Measurement(options, channels, hz).run());
    print(rows);
    if (!options.json.empty()) write_json(options, rows);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "barrier: %s\n", problem.what());
    return 1;
  }
  return 0;
}

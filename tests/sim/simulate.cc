// Runs many seeds of the whole-receiver simulation, or one again.
//   simulate [--seed S] [--seeds N] [--verbose] [--keep-going] [--plan TEXT]
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "tests/sim/simulation.h"

int main(int argc, char** argv) {
  using namespace migrx::sim;
  uint64_t first = 1;
  uint64_t count = 1000;
  bool one = false;
  bool counted = false;
  bool verbose = false;
  bool keep_going = false;
  std::string plan;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const bool has_value = i + 1 < argc;
    if (option == "--seed" && has_value) {
      first = std::strtoull(argv[++i], nullptr, 0);
      one = true;
    } else if (option == "--seeds" && has_value) {
      count = std::strtoull(argv[++i], nullptr, 0);
      counted = true;
    } else if (option == "--plan" && has_value) {
      plan = argv[++i];
    } else if (option == "--verbose") {
      verbose = true;
    } else if (option == "--keep-going") {
      keep_going = true;
    } else {
      std::fprintf(
          stderr,
          "usage: simulate [--seeds N] [--seed S] [--verbose] [--keep-going] [--plan TEXT]\n"
          "  --plan TEXT passes over the seeds whose plan, as --verbose prints it, has not this text\n"
          "  --seed S alone replays one run; with --seeds N it is the first of N\n");
      return 2;
    }
  }
  if (one && !counted) {
    count = 1;
    verbose = true;
  }
  // Whoever reads along wants to know which seed was the last to end well.
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto start = std::chrono::steady_clock::now();
  uint64_t failures = 0;
  uint64_t frames = 0;
  uint64_t epochs = 0;
  uint64_t pages = 0;
  uint64_t lost = 0;
  uint64_t retransmissions = 0;
  double virtual_s = 0;
  std::map<std::string, uint64_t> ends;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    if (!plan.empty() && describe(scenario_of(seed)).find(plan) == std::string::npos) continue;
    const RunResult result = run_seed(seed);
    frames += result.frames;
    epochs += result.epochs;
    pages += result.pages;
    lost += result.lost;
    retransmissions += result.retransmissions;
    virtual_s += static_cast<double>(result.virtual_ns) * 1e-9;
    ++ends[migrx::to_string(result.state)];
    if (verbose || !result.problem.empty())
      std::printf(
          "seed %" PRIu64 ": %s; %s; %" PRIu64 " frames, %.3f s virtual, digest %016" PRIx64 "\n", seed,
          result.problem.empty() ? migrx::to_string(result.state) : ("FAILED: " + result.problem).c_str(),
          result.summary.c_str(), result.frames, static_cast<double>(result.virtual_ns) * 1e-9,
          result.digest);
    if (!result.problem.empty()) {
      ++failures;
      if (!keep_going) break;
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%" PRIu64 " seeds from %" PRIu64 " in %.1f s, %" PRIu64 " failed;", count, first, seconds,
              failures);
  for (const auto& [state, n] : ends) std::printf(" %s %" PRIu64 ",", state.c_str(), n);
  std::printf(" %" PRIu64 " frames (%" PRIu64 " lost or damaged, %" PRIu64 " sent again), %" PRIu64
              " epochs compared, %" PRIu64 " pages, %.0f s of virtual time\n",
              frames, lost, retransmissions, epochs, pages, virtual_s);
  return failures == 0 ? 0 : 1;
}

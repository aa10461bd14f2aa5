// What each stage of the data path costs, without a clock in it: a ladder. Every rung does what the one below
// it does and one stage more, on frames of the same source, and is timed from outside, burst by burst; the
// difference of two rungs is what that stage adds. The last rung is the product's own agent as a whole.
//
// Rungs are parts of the product put together here in the order in which the agent uses them. Stages overlap
// in an out-of-order core, so a difference is what a stage adds where it stands, not what it would take
// alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dataplane/port.h"

namespace migrx::bench {

struct StageOptions {
  uint32_t mtu = 1500;
  uint32_t channels = 8;
  uint32_t pool_mib = 16;
  uint32_t run = 16;
  uint32_t burst = kBurst;
  bool checksum_good = true;
  bool demote = true;
  uint32_t segments = 100'000;  // of each rung and repetition
  uint32_t repetitions = 5;
  int32_t cpu = 0;  // of the agent that is measured; -1: wherever the kernel likes
  // Of the other side; -1: both take turns on one thread.
  int32_t other_cpu = -1;
};

struct Rung {
  const char* name;
  const char* what;            // what it adds to the one before
  std::vector<double> cycles;  // TSC cycles per segment up to and including this stage, one per repetition
};

struct StageResult {
  std::string problem;  // empty: all rungs did what they should
  std::vector<Rung> rungs;
  // Measured by itself, for it cannot be left out of the stage that contains it.
  std::vector<Rung> alone;
};

// The poll core: port, parsing and checksum, flow lookup, TCP input, buffers home, ACKs, the rest of a turn.
[[nodiscard]] StageResult run_poll_stages(const StageOptions& options);
// The loader: slices taken and given back, packet headers parsed, pages written.
[[nodiscard]] StageResult run_loader_stages(const StageOptions& options);

}  // namespace migrx::bench

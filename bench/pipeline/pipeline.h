// One measured migration: replay port -> PollCore with TCP -> hand-off rings -> LoaderWorker with the
// session's channels -> guest RAM. All but the port is the product's own code, put together as loader/app
// does it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dataplane/port.h"

namespace migrx::bench {

struct PipelineOptions {
  uint32_t mtu = 1500;
  bool ipv6 = false;      // the source's and the receiver's addresses
  uint32_t channels = 8;  // multifd; the main channel comes on top
  uint32_t pool_mib = 16;
  uint32_t guest_mib = 512;
  uint32_t rounds = 8;
  uint32_t run = 16;
  uint32_t burst = kBurst;    // frames of one rx_burst at most
  uint32_t coalesce_kib = 0;  // payload of one frame, a chain of segments; 0: each segment by itself
  uint32_t drop_every = 0;    // segments; one of so many is lost once and sent again. 0: none
  uint32_t loader_cores = 1;  // on worker_cpu and those behind it
  bool one_thread = false;    // poll core and workers take turns on poll_cpu
  bool checksum_good = true;
  bool demote = true;
  bool scatter = false;
  // Scheduled before everything else of the machine: on one that is shared, what others do must not count.
  bool realtime = false;
  int32_t poll_cpu = 0;  // -1: wherever the kernel likes
  int32_t worker_cpu = 1;
};

// Figures of one repetition. Cycles are those of the TSC.
struct PipelineResult {
  std::string problem;  // empty: RAM is what the source sent, and nothing was dropped
  double seconds = 0;
  double ram_gbs = 0;         // guest bytes per second, 1e9
  double wire_gbs = 0;        // bytes on the cable, preamble and gap included
  double nt_limit_gbs = 0;    // stores of what is in the first cache into the same RAM, on the worker's CPU
  double copy_limit_gbs = 0;  // the copy kernel alone, from the port's packet buffers as they lie in the pool
  double met_limit_gbs = 0;   // the best copy kernel found, from these buffers in the order of the run
  double loader_gbs = 0;      // payload per second of one worker's busy time
  double loader_ratio = 0;    // of the limit of stores
  double loader_copy_ratio = 0;  // of the best copy kernel, buffers in the order of the run
  double loader_bytes_cycle = 0;
  double loader_busy = 0;        // share of the time, mean of the workers
  double poll_cycles = 0;        // per segment, turns that received; without the source's
  double poll_all_cycles = 0;    // per segment, all turns that did something
  double poll_frame_cycles = 0;  // per frame, turns that received; a frame is a segment unless coalesced
  double poll_busy = 0;          // share of the time, source included
  double source_cycles = 0;      // per segment: what the port's own work cost
  double burst = 0;              // segments per turn that received
  double acks_per_segment = 0;
  double ring_mean = 0;  // slices held by all connections together
  double ring_max = 0;
  double one_core_gbs = 0;  // one thread: guest bytes per second of both agents' busy time, source left out
  double segments = 0;
  double lost = 0;          // by the wire, as was asked for, and sent again
  double timeouts = 0;      // of these, without having been asked for by a SACK
  double out_of_order = 0;  // segments that arrived behind a hole
  uint64_t dropped = 0;     // over quota, duplicate, no buffer, not sent; without loss also out of order
  uint32_t buffers = 0;
  uint32_t quota = 0;  // buffers per connection
  const char* pages = "";
};

// What is wrong with these options on this machine, as a sentence; empty: nothing.
[[nodiscard]] std::string problem_of(const PipelineOptions& options);

// Throws std::exception when it cannot be set up.
[[nodiscard]] PipelineResult run_pipeline(const PipelineOptions& options);

// TSC cycles per second, measured once.
[[nodiscard]] double tsc_hz();

}  // namespace migrx::bench

// What the ladders of stages.h share.
#pragma once

#include <sched.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "dataplane/handoff/handoff.h"

namespace migrx::bench {

// Cycles per segment of many bursts. The slowest fiftieth is left out: those are the machine's interruptions,
// which the bursts of all rungs meet alike.
class BurstTimes {
 public:
  explicit BurstTimes(std::size_t bursts_max) { bursts_.reserve(bursts_max); }
  void add(uint64_t cycles, uint32_t segments) {
    segments_ += segments;
    if (bursts_.size() < bursts_.capacity()) bursts_.push_back({cycles, segments});
  }
  void clear() {
    bursts_.clear();
    segments_ = 0;
  }
  [[nodiscard]] uint64_t segments() const noexcept { return segments_; }
  [[nodiscard]] double per_segment() {
    if (bursts_.empty()) return 0;
    const auto cost = [](const Burst& b) { return static_cast<double>(b.cycles) / b.segments; };
    std::sort(bursts_.begin(), bursts_.end(),
              [&cost](const Burst& a, const Burst& b) { return cost(a) < cost(b); });
    double cycles = 0, segments = 0;
    for (std::size_t i = 0; i < bursts_.size() - bursts_.size() / 50; ++i) {
      cycles += static_cast<double>(bursts_[i].cycles);
      segments += bursts_[i].segments;
    }
    return cycles / segments;
  }

 private:
  struct Burst {
    uint64_t cycles;
    uint32_t segments;
  };
  std::vector<Burst> bursts_;
  uint64_t segments_ = 0;
};

// A worker reduced to taking slices, reading a word of each line, and giving them back.
class SliceReader {
 public:
  explicit SliceReader(std::vector<Handoff*> handoffs) : handoffs_(std::move(handoffs)) {}
  void read() noexcept {
    for (Handoff* const handoff : handoffs_)
      for (auto run = handoff->readable(); !run.empty(); run = handoff->readable()) {
        for (const Slice& slice : run) look(slice);
        handoff->advance(static_cast<uint32_t>(run.size()));
        handoff->release(static_cast<uint32_t>(run.size()));
      }
  }
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }

 private:
  void look(const Slice& slice) noexcept {
    for (uint32_t at = 0; at < slice.length; at += kCacheLineBytes)
      seen_ = seen_ + std::to_integer<uint64_t>(slice.data[at]);
    bytes_ += slice.length;
  }
  const std::vector<Handoff*> handoffs_;
  uint64_t bytes_ = 0;
  volatile uint64_t seen_ = 0;
};

inline void pin_to(int32_t cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    throw std::runtime_error("CPU " + std::to_string(cpu) + " cannot be used");
}

}  // namespace migrx::bench

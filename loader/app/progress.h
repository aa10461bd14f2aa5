// What a person sees while a migration runs: one line that is redrawn on a terminal, a plain line now and
// then elsewhere. Pure text making, so that it can be tested; the caller prints.
#pragma once

#include <cstdint>
#include <string>

namespace migrx {

struct ProgressSample {
  double now_s = 0;
  const char* phase = "";  // "listening", "setup", "precopy", "switchover", "done"
  uint32_t channels = 0;
  uint32_t channels_expected = 0;
  uint64_t wire_bytes = 0;  // received so far
  uint64_t pages = 0;       // applied so far, all rounds
  uint64_t zero_pages = 0;
  uint64_t rounds = 0;
  uint64_t ram_pages = 0;         // 0: not known yet
  uint64_t first_pass_pages = 0;  // pages seen in the first round; stands still afterwards
};

// Never runs backwards: counters only grow, the share of the first pass is held at its maximum, and the time
// left stands still where a slower source would make it longer.
class Progress {
 public:
  // Text without line end. `width`: columns of the terminal, 0 for plain lines.
  [[nodiscard]] std::string line(const ProgressSample& sample, unsigned width);

  // Seconds to the end of the first pass, as the last line had it; negative: not known yet, or over. What
  // comes after that pass depends on the pages that the guest writes, which only the source knows.
  [[nodiscard]] double first_pass_left_s() const noexcept { return left_s_; }

 private:
  void estimate(const ProgressSample& sample);

  double first_page_s_ = -1;  // when the first pages were seen
  double first_share_ = 0;    // and how far they were
  double left_s_ = -1;

  double last_s_ = 0;
  uint64_t last_bytes_ = 0;
  double rate_ = 0;   // bytes per second, smoothed
  double share_ = 0;  // of the first pass, 0..1
  bool started_ = false;
};

}  // namespace migrx

// What a person sees while a migration runs: one line that is redrawn on a terminal, a plain line now and
// then elsewhere. Pure text making, so that it can be tested; the caller prints.
#pragma once

#include <cstdint>
#include <deque>
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
  uint64_t rounds = 0;            // passes over RAM begun; 0: none yet
  uint64_t epochs = 0;            // markers met
  uint64_t ram_pages = 0;         // 0: not known yet
  uint64_t first_pass_pages = 0;  // pages seen in the first round; stands still afterwards
  // Of all threads that poll, time in turns that found something and in those that did not; both 0: nobody
  // polls here.
  double poll_busy_s = 0;
  double poll_idle_s = 0;
  bool spins = false;  // a turn that found nothing is followed by the next at once
};

// Never runs backwards: counters only grow, the share of the first pass is held at its maximum, and the time
// left stands still where a slower source would make it longer. Rates are of the last second.
class Progress {
 public:
  // Text without line end. `width`: columns of the terminal, 0 for plain lines. May be called in any rhythm.
  [[nodiscard]] std::string line(const ProgressSample& sample, unsigned width);

  // Seconds to the end of the first pass, as the last line had it; negative: not known yet, or over. What
  // comes after that pass depends on the pages that the guest writes, which only the source knows.
  [[nodiscard]] double first_pass_left_s() const noexcept { return left_s_; }

 private:
  struct Look {
    double now_s;
    uint64_t wire_bytes;
    double busy_s;
    double idle_s;
  };
  void estimate(const ProgressSample& sample);
  // What rates are taken from: the look that is at least a second old, or the first.
  const Look& look_back(const ProgressSample& sample);

  double first_page_s_ = -1;  // when the first pages were seen
  double first_share_ = 0;    // and how far they were
  double left_s_ = -1;

  std::deque<Look> looks_;  // of the last second, and the one before
  uint64_t last_bytes_ = 0;
  double share_ = 0;  // of the first pass, 0..1
};

}  // namespace migrx

#include "loader/app/progress.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

ProgressSample at(double seconds, uint64_t first_pass, uint64_t bytes) {
  ProgressSample sample;
  sample.now_s = seconds;
  sample.phase = "precopy";
  sample.ram_pages = 1000;
  sample.first_pass_pages = first_pass;
  sample.wire_bytes = bytes;
  return sample;
}

TEST(Progress, never_runs_backwards) {
  Progress progress;
  EXPECT_NE(progress.line(at(1, 500, 1 << 20), 0).find("50% of the first pass"), std::string::npos);
  // The second round starts to count anew; the share must stay.
  EXPECT_NE(progress.line(at(2, 10, 2 << 20), 0).find("50% of the first pass"), std::string::npos);
  EXPECT_EQ(progress.line(at(3, 1000, 3 << 20), 0).find("first pass"), std::string::npos);
}

TEST(Progress, fits_the_terminal) {
  Progress progress;
  EXPECT_LT(progress.line(at(1, 500, 1 << 20), 40).size(), 40U);
}

TEST(Progress, shows_the_rate) {
  Progress progress;
  (void)progress.line(at(1, 0, 0), 0);
  EXPECT_NE(progress.line(at(2, 1, 1ULL << 30), 0).find("1.00 GiB/s"), std::string::npos);
}

}  // namespace
}  // namespace migrx

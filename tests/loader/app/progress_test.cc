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

// The time left of the first pass at each moment of a trace of (seconds, share of 1000 pages).
std::vector<double> times_left(const std::vector<std::pair<double, uint64_t>>& trace) {
  Progress progress;
  std::vector<double> left;
  for (const auto& [seconds, pages] : trace) {
    (void)progress.line(at(seconds, pages, pages << 12), 0);
    left.push_back(progress.first_pass_left_s());
  }
  return left;
}

TEST(Progress, time_left_is_right_after_a_fifth_of_a_steady_pass) {
  std::vector<std::pair<double, uint64_t>> trace;
  constexpr double kWholeS = 50;
  for (uint64_t i = 0; i <= 100; ++i) trace.emplace_back(3 + kWholeS * static_cast<double>(i) / 100, 10 * i);
  const std::vector<double> left = times_left(trace);
  EXPECT_LT(left[5], 0);  // too early to tell
  for (std::size_t i = 20; i < 100; ++i) {
    const double truth = kWholeS * static_cast<double>(100 - i) / 100;
    EXPECT_NEAR(left[i], truth, 0.1 * truth + 0.01) << i;
  }
  EXPECT_LT(left[100], 0);  // over
}

// Recorded: QEMU 7.2 at 20 MiB/s, 256 MiB of which a fifth is zero; seconds after the start, share in
// thousandths.
TEST(Progress, time_left_of_a_recorded_migration_never_grows) {
  const std::vector<std::pair<double, uint64_t>> trace{{0.44, 0},   {1.21, 64},  {1.87, 138},  {2.67, 138},
                                                       {3.43, 201}, {4.21, 281}, {5.17, 375},  {6.07, 459},
                                                       {6.90, 553}, {8.20, 642}, {9.11, 740},  {10.0, 838},
                                                       {10.9, 931}, {11.8, 931}, {12.7, 1000}, {13.4, 1000}};
  const std::vector<double> left = times_left(trace);
  double last = 1e9;
  for (std::size_t i = 5; i < 14; ++i) {
    ASSERT_GE(left[i], 0) << i;
    EXPECT_LE(left[i], last) << i;
    last = left[i];
    // The second half of the pass: within a quarter and a second, zero pages and a clock of one second
    // included.
    const double truth = 12.3 - trace[i].first;
    if (i >= 8 && i < 13) {
      EXPECT_NEAR(left[i], truth, 0.25 * truth + 1) << i;
    }
  }
  EXPECT_LT(left[15], 0);
}

TEST(Progress, time_left_stands_still_when_the_source_pauses) {
  const std::vector<double> left = times_left({{0, 0}, {1, 100}, {2, 300}, {3, 500}, {60, 500}, {61, 501}});
  EXPECT_GT(left[3], 0);
  EXPECT_EQ(left[4], left[3]);
  EXPECT_EQ(left[5], left[3]);
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

// 100 MiB a second, then 10: after a second the line says 10, whatever came before, and however often it is
// drawn.
TEST(Progress, the_rate_is_that_of_the_last_second) {
  for (const double rhythm_s : {0.1, 0.5, 2.0}) {
    Progress progress;
    std::string line;
    double bytes = 0;
    for (double now = 0; now < 20; now += rhythm_s) {
      line = progress.line(at(now, 1, static_cast<uint64_t>(bytes)), 0);
      bytes += rhythm_s * (now < 10 ? 102.4 : 10.24) * (1 << 20);
    }
    EXPECT_NE(line.find("at 0.01 GiB/s"), std::string::npos) << line;
  }
}

TEST(Progress, the_rate_of_a_source_that_pauses_is_zero) {
  Progress progress;
  (void)progress.line(at(1, 1, 1 << 30), 0);
  (void)progress.line(at(2, 1, 2U << 30), 0);
  EXPECT_NE(progress.line(at(3.5, 1, 2U << 30), 0).find("at 0.00 GiB/s"), std::string::npos);
  // Nothing passed since the last look.
  EXPECT_NE(progress.line(at(3.5, 1, 2U << 30), 0).find("at 0.00 GiB/s"), std::string::npos);
}

// A core that spins is at 100 % for the kernel; what of it is useful is a matter of the last second.
TEST(Progress, says_how_much_of_the_polling_is_useful) {
  Progress progress;
  ProgressSample sample = at(1, 1, 1 << 20);
  EXPECT_EQ(progress.line(sample, 0).find("useful"), std::string::npos);
  sample.spins = true;
  sample.poll_busy_s = 5;
  sample.poll_idle_s = 5;
  sample.now_s = 2;
  (void)progress.line(sample, 0);
  sample.now_s = 4;
  sample.poll_busy_s += 0.5;
  sample.poll_idle_s += 1.5;
  EXPECT_NE(progress.line(sample, 0).find("polling, 25 % useful"), std::string::npos);
  sample.now_s = 6;
  sample.poll_busy_s += 2;
  sample.spins = false;
  EXPECT_NE(progress.line(sample, 0).find("poll cores, 100 % useful"), std::string::npos);
}

// Looks that nobody waits a second for do not pile up.
TEST(Progress, many_looks_in_one_moment_are_no_matter) {
  Progress progress;
  std::string line;
  for (int i = 0; i < 100'000; ++i)
    line = progress.line(at(1 + 1e-5 * i, 1, 1024 * static_cast<uint64_t>(i)), 0);
  EXPECT_NE(line.find("round 0"), std::string::npos);
}

}  // namespace
}  // namespace migrx

#include "dataplane/stall_recorder.h"

#include <gtest/gtest.h>

#include <thread>

namespace migrx {
namespace {

Stall stall_number(uint32_t n) {
  return {uint64_t{n} * 1000, uint64_t{n} * 10, n, n % 3, n % 5};
}

TEST(StallRecorder, the_last_ones_are_kept_in_order) {
  StallRecorder recorder;
  EXPECT_TRUE(recorder.last().empty());
  for (uint32_t n = 1; n <= 5; ++n) recorder.record(stall_number(n));
  ASSERT_EQ(recorder.last().size(), 5U);
  EXPECT_EQ(recorder.last().front().work, 1U);
  for (uint32_t n = 6; n <= 100; ++n) recorder.record(stall_number(n));
  const std::vector<Stall> last = recorder.last();
  ASSERT_EQ(last.size(), StallRecorder::kKept);
  for (std::size_t i = 0; i < last.size(); ++i) EXPECT_EQ(last[i].work, 100 - last.size() + 1 + i);
  EXPECT_EQ(last.back().ended_ns, 100'000U);
  EXPECT_EQ(last.back().ns, 1000U);
  EXPECT_EQ(last.back().agent, 1U);
  EXPECT_EQ(last.back().preemptions, 0U);
  EXPECT_EQ(recorder.count(), 100U);
}

// A reader beside a writer that never rests sees whole stalls in their order, or none.
TEST(StallRecorder, who_reads_meanwhile_sees_no_mixture) {
  StallRecorder recorder;
  std::thread writer([&] {
    for (uint32_t n = 1; n <= 200'000; ++n) recorder.record(stall_number(n));
  });
  uint64_t seen = 0;
  uint32_t newest = 0;
  while (newest < 200'000) {
    const std::vector<Stall> last = recorder.last();
    uint32_t before = 0;
    for (const Stall& stall : last) {
      ASSERT_EQ(stall.ended_ns, uint64_t{stall.work} * 1000);
      ASSERT_EQ(stall.ns, uint64_t{stall.work} * 10);
      ASSERT_EQ(stall.agent, stall.work % 3);
      ASSERT_TRUE(before == 0 || stall.work == before + 1) << stall.work << " after " << before;
      before = stall.work;
      ++seen;
    }
    newest = std::max(newest, before);
    std::this_thread::yield();
  }
  writer.join();
  EXPECT_GT(seen, 0U);
}

}  // namespace
}  // namespace migrx

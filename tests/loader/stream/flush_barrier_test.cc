#include "loader/stream/flush_barrier.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace migrx {
namespace {

TEST(FlushBarrier, main_waits_for_the_last_channel_of_each_sync) {
  FlushBarrier barrier(3);
  EXPECT_FALSE(barrier.all_arrived(0));
  barrier.arrive(0, 0);
  barrier.arrive(2, 0);
  EXPECT_FALSE(barrier.all_arrived(0));
  barrier.wait(0);
  EXPECT_TRUE(barrier.main_waits_for(1));
  EXPECT_FALSE(barrier.main_waits_for(0));
  barrier.arrive(1, 0);
  EXPECT_TRUE(barrier.all_arrived(0));
  EXPECT_FALSE(barrier.main_waits_for(1));
  EXPECT_FALSE(barrier.all_arrived(1));
}

TEST(FlushBarrier, a_channel_that_is_ahead_counts_for_the_syncs_before) {
  FlushBarrier barrier(2);
  barrier.arrive(0, 4);
  barrier.arrive(1, 2);
  EXPECT_TRUE(barrier.all_arrived(2));
  EXPECT_FALSE(barrier.all_arrived(3));
  EXPECT_EQ(barrier.epochs_arrived(0), 5U);
}

TEST(FlushBarrier, a_release_lets_its_sync_pass_and_no_later_one) {
  FlushBarrier barrier(1);
  EXPECT_FALSE(barrier.released(0));
  barrier.release(0);
  EXPECT_TRUE(barrier.released(0));
  EXPECT_FALSE(barrier.released(1));
  EXPECT_EQ(barrier.epochs_released(), 1U);
  EXPECT_FALSE(barrier.all_released());
  barrier.release_all();
  EXPECT_TRUE(barrier.all_released());
  EXPECT_TRUE(barrier.released(1'000'000));
}

TEST(FlushBarrier, without_channels_nobody_is_waited_for) {
  const FlushBarrier barrier(0);
  EXPECT_TRUE(barrier.all_arrived(0));
}

// What the barrier is for: a page that one channel writes before its SYNC and another channel behind it.
// Under TSan this also shows that both stores publish what was written before them.
TEST(FlushBarrier, what_is_written_before_a_sync_is_seen_behind_its_release) {
  constexpr uint64_t kSyncs = 2000;
  constexpr uint32_t kChannels = 2;
  FlushBarrier barrier(kChannels);
  uint64_t page = 0;     // of the channel whose turn it is: in sync k that of number k % kChannels
  uint64_t of_main = 0;  // main's, between all_arrived() and release()
  std::vector<std::thread> channels;
  std::vector<uint64_t> wrong(kChannels);
  for (uint32_t i = 0; i < kChannels; ++i)
    channels.emplace_back([&, i] {
      for (uint64_t k = 0; k < kSyncs; ++k) {
        if (k % kChannels == i) {
          if (page != k || of_main != k) ++wrong[i];
          page = k + 1;
        }
        barrier.arrive(i, k);
        while (!barrier.released(k)) std::this_thread::yield();
      }
    });
  for (uint64_t k = 0; k < kSyncs; ++k) {
    while (!barrier.all_arrived(k)) std::this_thread::yield();
    EXPECT_EQ(page, k + 1);
    of_main = k + 1;
    barrier.release(k);
  }
  for (std::thread& channel : channels) channel.join();
  EXPECT_EQ(wrong, std::vector<uint64_t>(kChannels));
}

}  // namespace
}  // namespace migrx

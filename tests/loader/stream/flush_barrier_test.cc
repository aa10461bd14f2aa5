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
  EXPECT_EQ(barrier.release_all(), 1U);
  EXPECT_TRUE(barrier.all_released());
  EXPECT_TRUE(barrier.released(1'000'000));
}

TEST(FlushBarrier, pages_behind_the_last_sync_are_noticed_at_the_end_of_ram) {
  FlushBarrier barrier(3);
  EXPECT_TRUE(barrier.begin_pages(1));
  EXPECT_TRUE(barrier.begin_pages(1));
  EXPECT_TRUE(barrier.begin_pages(2));
  barrier.arrive(1, 0);
  EXPECT_EQ(barrier.release_all(), 2U);
  EXPECT_FALSE(barrier.begin_pages(1));
}

// However they meet, one of both sides notices.
TEST(FlushBarrier, the_end_of_ram_and_a_packet_with_pages_do_not_miss_each_other) {
  constexpr uint32_t kTimes = 2000;
  std::vector<std::unique_ptr<FlushBarrier>> barriers;
  for (uint32_t i = 0; i < kTimes; ++i) barriers.push_back(std::make_unique<FlushBarrier>(1));
  std::vector<uint8_t> applied(kTimes);
  std::atomic<uint32_t> turn{0};
  std::thread channel([&] {
    for (uint32_t i = 0; i < kTimes; ++i) {
      while (turn.load() < i) std::this_thread::yield();
      applied[i] = barriers[i]->begin_pages(0) ? 1 : 0;
    }
  });
  std::vector<uint8_t> clean(kTimes);
  for (uint32_t i = 0; i < kTimes; ++i) {
    turn.store(i);
    clean[i] = barriers[i]->release_all() == 1 ? 1 : 0;
  }
  channel.join();
  for (uint32_t i = 0; i < kTimes; ++i) ASSERT_FALSE(applied[i] == 1 && clean[i] == 1) << i;
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

#include "loader/stream/flush_barrier.h"

#include <gtest/gtest.h>

#include <thread>
#include <type_traits>
#include <vector>

#include "loader/stream/error.h"

namespace migrx {
namespace {

TEST(FlushBarrier, main_waits_for_the_last_channel_of_each_sync) {
  FlushBarrier barrier(3);
  EXPECT_FALSE(barrier.all_arrived(Epoch{0}));
  barrier.arrive(MultifdId{0}, Epoch{0});
  barrier.arrive(MultifdId{2}, Epoch{0});
  EXPECT_FALSE(barrier.all_arrived(Epoch{0}));
  barrier.wait(Epoch{0});
  EXPECT_TRUE(barrier.main_waits_for(MultifdId{1}));
  EXPECT_FALSE(barrier.main_waits_for(MultifdId{0}));
  barrier.arrive(MultifdId{1}, Epoch{0});
  EXPECT_TRUE(barrier.all_arrived(Epoch{0}));
  EXPECT_FALSE(barrier.main_waits_for(MultifdId{1}));
  EXPECT_FALSE(barrier.all_arrived(Epoch{1}));
}

TEST(FlushBarrier, a_channel_that_is_ahead_counts_for_the_syncs_before) {
  FlushBarrier barrier(2);
  barrier.arrive(MultifdId{0}, Epoch{4});
  barrier.arrive(MultifdId{1}, Epoch{2});
  EXPECT_TRUE(barrier.all_arrived(Epoch{2}));
  EXPECT_FALSE(barrier.all_arrived(Epoch{3}));
  EXPECT_EQ(barrier.epochs_arrived(MultifdId{0}), 5U);
}

TEST(FlushBarrier, a_release_lets_its_sync_pass_and_no_later_one) {
  FlushBarrier barrier(1);
  EXPECT_FALSE(barrier.released(Epoch{0}));
  barrier.release(Epoch{0});
  EXPECT_TRUE(barrier.released(Epoch{0}));
  EXPECT_FALSE(barrier.released(Epoch{1}));
  EXPECT_EQ(barrier.epochs_released(), 1U);
  EXPECT_FALSE(barrier.all_released());
  EXPECT_FALSE(barrier.release_all());
  EXPECT_TRUE(barrier.all_released());
  EXPECT_TRUE(barrier.released(Epoch{1'000'000}));
}

TEST(FlushBarrier, pages_behind_the_last_sync_are_noticed_at_the_end_of_ram) {
  FlushBarrier barrier(3);
  EXPECT_TRUE(barrier.begin_pages(MultifdId{1}));
  EXPECT_TRUE(barrier.begin_pages(MultifdId{1}));
  EXPECT_TRUE(barrier.begin_pages(MultifdId{2}));
  barrier.arrive(MultifdId{1}, Epoch{0});
  EXPECT_EQ(barrier.release_all(), MultifdId{2});
  EXPECT_FALSE(barrier.begin_pages(MultifdId{1}));
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
      applied[i] = barriers[i]->begin_pages(MultifdId{0}) ? 1 : 0;
    }
  });
  std::vector<uint8_t> clean(kTimes);
  for (uint32_t i = 0; i < kTimes; ++i) {
    turn.store(i);
    clean[i] = barriers[i]->release_all() ? 0 : 1;
  }
  channel.join();
  for (uint32_t i = 0; i < kTimes; ++i) ASSERT_FALSE(applied[i] == 1 && clean[i] == 1) << i;
}

// A channel, an epoch and a count of epochs are numbers, and none of them passes for another.
template <typename Channel, typename Number>
concept Arrives = requires(FlushBarrier& barrier, Channel channel, Number number) {
  barrier.arrive(channel, number);
};
static_assert(Arrives<MultifdId, Epoch>);
static_assert(!Arrives<Epoch, MultifdId>);
static_assert(!Arrives<MultifdId, uint64_t>);
static_assert(!Arrives<uint32_t, Epoch>);
static_assert(!std::is_convertible_v<uint32_t, MultifdId> && !std::is_convertible_v<MultifdId, uint32_t>);
static_assert(!std::is_convertible_v<uint64_t, Epoch> && !std::is_convertible_v<Epoch, uint64_t>);
static_assert(!std::is_constructible_v<Epoch, MultifdId> && !std::is_constructible_v<MultifdId, Epoch>);
static_assert(!std::is_constructible_v<ChannelName, uint32_t> &&
              !std::is_constructible_v<ChannelName, Epoch>);

TEST(FlushBarrier, without_channels_nobody_is_waited_for) {
  const FlushBarrier barrier(0);
  EXPECT_TRUE(barrier.all_arrived(Epoch{0}));
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
        barrier.arrive(MultifdId{i}, Epoch{k});
        while (!barrier.released(Epoch{k})) std::this_thread::yield();
      }
    });
  for (uint64_t k = 0; k < kSyncs; ++k) {
    while (!barrier.all_arrived(Epoch{k})) std::this_thread::yield();
    EXPECT_EQ(page, k + 1);
    of_main = k + 1;
    barrier.release(Epoch{k});
  }
  for (std::thread& channel : channels) channel.join();
  EXPECT_EQ(wrong, std::vector<uint64_t>(kChannels));
}

}  // namespace
}  // namespace migrx

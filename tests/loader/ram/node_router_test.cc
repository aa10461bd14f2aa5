#include "loader/ram/node_router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace migrx {
namespace {

const PageKernels& kernels() {
  return *supported_page_kernels().back();
}

TEST(NodeRouter, only_other_nodes_with_a_server_have_a_lane) {
  CopyLane lane(4, kernels());
  NodeRouter router(NodeId{0});
  router.add(NodeId{1}, lane);
  EXPECT_EQ(router.lane_to(NodeId{1}), &lane);
  EXPECT_EQ(router.lane_to(NodeId{0}), nullptr);
  EXPECT_EQ(router.lane_to(NodeId{2}), nullptr);
  EXPECT_EQ(router.lane_to(kAnyNode), nullptr);
}

TEST(CopyLane, a_job_is_complete_only_after_it_was_served) {
  alignas(64) std::byte to[128]{};
  const std::byte from[128]{std::byte{1}, std::byte{2}};
  CopyLane lane(2, kernels());
  EXPECT_TRUE(lane.push({to, from, 70}));
  EXPECT_TRUE(lane.push({to + 70, from + 70, 58}));
  EXPECT_FALSE(lane.has_room());
  EXPECT_FALSE(lane.push({to, from, 1}));
  EXPECT_FALSE(lane.is_completed(1));
  EXPECT_FALSE(lane.drained());
  EXPECT_EQ(lane.serve(1), 1U);
  EXPECT_TRUE(lane.is_completed(1));
  EXPECT_FALSE(lane.is_completed(2));
  EXPECT_TRUE(std::equal(to, to + 70, from));
  EXPECT_EQ(lane.serve(8), 1U);
  EXPECT_EQ(lane.serve(8), 0U);
  EXPECT_TRUE(lane.is_completed(2));
  EXPECT_TRUE(lane.drained());
  EXPECT_TRUE(std::equal(to, to + 128, from));
  EXPECT_EQ(lane.bytes_copied.read(), 128U);
}

// Found by the simulation, seed 87: two channels of one worker take turns, each in the middle of a page.
TEST(CopyLane, pieces_of_two_channels_take_turns_at_any_byte) {
  constexpr std::size_t kBytes = 2 * kPageBytes;
  std::vector<std::byte> from(2 * kBytes);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 31 % 251 + 1);
  for (const std::size_t piece : {1U, 52U, 63U, 64U, 65U, 524U, 1448U}) {
    alignas(kPageBytes) std::byte to[2][kBytes]{};
    CopyLane lane(8, kernels());
    for (std::size_t at = 0; at < kBytes; at += piece) {
      const auto length = static_cast<uint32_t>(std::min(piece, kBytes - at));
      for (std::size_t channel = 0; channel < 2; ++channel)
        ASSERT_TRUE(lane.push({to[channel] + at, from.data() + channel * kBytes + at, length}));
      lane.serve(8);
    }
    for (std::size_t channel = 0; channel < 2; ++channel)
      EXPECT_TRUE(std::equal(to[channel], to[channel] + kBytes, from.data() + channel * kBytes)) << piece;
  }
}

TEST(RoutedBytes, the_oldest_piece_under_way_is_kept) {
  std::byte from[64]{};
  alignas(64) std::byte to[64];
  CopyLane a(64, kernels()), b(64, kernels());
  RoutedBytes routed;
  EXPECT_TRUE(routed.collect());
  EXPECT_EQ(routed.oldest(), UINT64_MAX);
  ASSERT_TRUE(a.push({to, from, 8}));
  routed.note(a, 100);
  ASSERT_TRUE(b.push({to, from, 8}));
  routed.note(b, 100);
  ASSERT_TRUE(a.push({to, from, 8}));
  routed.note(a, 200);
  EXPECT_FALSE(routed.collect());
  EXPECT_EQ(routed.oldest(), 100U);
  a.serve(8);
  EXPECT_FALSE(routed.collect());
  EXPECT_EQ(routed.oldest(), 100U);
  b.serve(8);
  EXPECT_TRUE(routed.collect());
  EXPECT_EQ(routed.oldest(), UINT64_MAX);
}

TEST(RoutedBytes, it_is_bounded_and_makes_room_by_completion) {
  std::byte from[64]{};
  alignas(64) std::byte to[64];
  CopyLane lane(1024, kernels());
  RoutedBytes routed;
  for (uint64_t piece = 0; piece < RoutedBytes::kEntriesMax; ++piece) {
    ASSERT_TRUE(routed.room_for(lane, piece));
    ASSERT_TRUE(lane.push({to, from, 1}));
    routed.note(lane, piece);
  }
  EXPECT_TRUE(routed.room_for(lane, RoutedBytes::kEntriesMax - 1));  // the newest piece takes more jobs
  EXPECT_FALSE(routed.room_for(lane, RoutedBytes::kEntriesMax));
  lane.serve(1);
  EXPECT_TRUE(routed.room_for(lane, RoutedBytes::kEntriesMax));
}

TEST(CopyLane, two_threads_copy_everything_and_the_source_may_be_reused_when_complete) {
  constexpr std::size_t kBytes = 1 << 20;
  constexpr uint32_t kPiece = 1448;
  std::vector<std::byte> memory(kBytes + 64);
  std::byte* const to = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
  CopyLane lane(32, kernels());
  std::atomic<bool> stop{false};
  std::thread server([&] {
    while (!stop.load(std::memory_order_acquire))
      if (lane.serve(16) == 0) std::this_thread::yield();
  });
  // Four pieces take turns; each is rewritten as soon as its job is complete.
  std::byte pieces[4][kPiece];
  uint64_t job_of[4]{};
  uint32_t turn = 0;
  for (std::size_t at = 0; at < kBytes; ++turn) {
    const uint32_t slot = turn % 4;
    while (!lane.is_completed(job_of[slot])) std::this_thread::yield();
    const uint32_t n = static_cast<uint32_t>(std::min<std::size_t>(kPiece, kBytes - at));
    for (uint32_t i = 0; i < n; ++i) pieces[slot][i] = static_cast<std::byte>((at + i) * 2654435761U >> 24);
    while (!lane.push({to + at, pieces[slot], n})) std::this_thread::yield();
    job_of[slot] = lane.pushed();
    at += n;
  }
  while (!lane.is_completed(lane.pushed())) std::this_thread::yield();
  bool same = true;
  for (std::size_t i = 0; i < kBytes; ++i)
    same = same && to[i] == static_cast<std::byte>(i * 2654435761U >> 24);
  EXPECT_TRUE(same);
  stop.store(true, std::memory_order_release);
  server.join();
}

}  // namespace
}  // namespace migrx

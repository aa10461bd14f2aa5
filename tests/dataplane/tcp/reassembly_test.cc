#include "dataplane/tcp/reassembly.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace migrx {
namespace {

constexpr SeqNum kBase{0xffff'ff80};  // all tests cross the wrap

struct Buffers {
  // A buffer is known by a number; freeing one twice or losing one shows.
  std::set<uintptr_t> live;
  uintptr_t last = 0;
  void* make() {
    live.insert(++last);
    return reinterpret_cast<void*>(last);
  }
  void free(void* buffer) { EXPECT_EQ(live.erase(reinterpret_cast<uintptr_t>(buffer)), 1U); }
};

Slice slice_of(std::string_view text, Buffers& buffers) {
  return {reinterpret_cast<const std::byte*>(text.data()), buffers.make(), static_cast<uint32_t>(text.size()),
          StreamEnd::none};
}

std::string drain(Reassembly& r, SeqNum from, Buffers& buffers) {
  std::string out;
  Slice s;
  while (r.pop_at(from, s)) {
    out.append(reinterpret_cast<const char*>(s.data), s.length);
    from += s.length;
    buffers.free(s.buffer);
  }
  return out;
}

std::vector<SackBlock> blocks(const Reassembly& r, std::size_t n = 3) {
  std::vector<SackBlock> out(n);
  out.resize(r.sack_blocks(out));
  return out;
}

struct Fixture : testing::Test {
  Buffers buffers;
  Reassembly r{64, 8};
  Reassembly::Result put(uint32_t at, std::string_view text) {
    Slice s = slice_of(text, buffers);
    const auto result = r.insert(kBase + at, s, false);
    if (s.buffer != nullptr) buffers.free(s.buffer);
    return result;
  }
  static SackBlock block(uint32_t a, uint32_t b) { return {kBase + a, kBase + b}; }
  void TearDown() override {
    r.clear();
    std::vector<void*> freed(200);
    freed.resize(r.take_discarded(freed));
    for (void* b : freed) buffers.free(b);
    EXPECT_TRUE(buffers.live.empty());
    EXPECT_EQ(r.node_count(), 0U);
  }
};
using ReassemblyTest = Fixture;

TEST_F(ReassemblyTest, touching_slices_join_into_one_run) {
  put(10, "cc");
  put(6, "aa");
  EXPECT_EQ(r.run_count(), 2U);
  put(8, "bb");
  EXPECT_EQ(r.run_count(), 1U);
  EXPECT_EQ(r.run(0), block(6, 12));
  EXPECT_EQ(drain(r, kBase + 6, buffers), "aabbcc");
}

TEST_F(ReassemblyTest, overlap_is_trimmed_and_the_first_bytes_win) {
  put(10, "MMMM");
  const auto left = put(8, "abXX");
  EXPECT_TRUE(left.overlaps);
  EXPECT_TRUE(left.differs);
  EXPECT_EQ(left.duplicate_range, block(10, 12));
  const auto right = put(12, "MMcd");
  EXPECT_TRUE(right.overlaps);
  EXPECT_FALSE(right.differs);
  EXPECT_EQ(drain(r, kBase + 8, buffers), "abMMMMcd");
}

TEST_F(ReassemblyTest, equal_run_inside_a_slice_is_replaced) {
  put(10, "cd");
  const auto result = put(8, "abcdef");
  EXPECT_TRUE(result.overlaps);
  EXPECT_FALSE(result.differs);
  EXPECT_EQ(r.discarded(), 1U);
  EXPECT_EQ(drain(r, kBase + 8, buffers), "abcdef");
}

TEST_F(ReassemblyTest, differing_run_inside_a_slice_stays_and_the_rest_is_left_to_the_sender) {
  put(10, "XX");
  const auto result = put(8, "abcdef");
  EXPECT_TRUE(result.differs);
  EXPECT_EQ(r.run(0), block(8, 12));
  EXPECT_EQ(drain(r, kBase + 8, buffers), "abXX");
}

TEST_F(ReassemblyTest, duplicates_are_told) {
  put(10, "abcdef");
  EXPECT_EQ(put(10, "abcdef").insert, Reassembly::Insert::duplicate);
  EXPECT_EQ(put(12, "cd").insert, Reassembly::Insert::duplicate);
  const auto differing = put(12, "xx");
  EXPECT_EQ(differing.insert, Reassembly::Insert::duplicate);
  EXPECT_TRUE(differing.differs);
  EXPECT_EQ(r.node_count(), 1U);
}

// RFC 2018 section 4: the block with the most recent arrival first, then the most recently reported ones.
TEST_F(ReassemblyTest, sack_blocks_come_in_order_of_recency) {
  put(10, "a");
  put(20, "b");
  put(30, "c");
  put(40, "d");
  EXPECT_EQ(blocks(r), (std::vector{block(40, 41), block(30, 31), block(20, 21)}));
  put(11, "a");
  EXPECT_EQ(blocks(r), (std::vector{block(10, 12), block(40, 41), block(30, 31)}));
  put(31, "ccccccccc");  // joins two
  EXPECT_EQ(blocks(r), (std::vector{block(30, 41), block(10, 12), block(20, 21)}));
  EXPECT_EQ(blocks(r, 1), (std::vector{block(30, 41)}));
}

TEST_F(ReassemblyTest, runs_are_bounded_except_for_what_is_in_order) {
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(put(10 + 4 * i, "x").insert, Reassembly::Insert::stored);
  EXPECT_EQ(put(100, "x").insert, Reassembly::Insert::no_run);
  EXPECT_EQ(put(11, "y").insert, Reassembly::Insert::stored);  // joins one
  Slice s = slice_of("z", buffers);
  EXPECT_EQ(r.insert(kBase + 2, s, true).insert, Reassembly::Insert::stored);
  EXPECT_EQ(drain(r, kBase + 2, buffers), "z");
  EXPECT_EQ(r.run_count(), 8U);
}

TEST_F(ReassemblyTest, nodes_are_bounded_and_the_highest_goes_first) {
  for (uint32_t i = 0; i < 64; ++i) EXPECT_EQ(put(10 + i, "x").insert, Reassembly::Insert::stored);
  EXPECT_EQ(put(74, "x").insert, Reassembly::Insert::no_room);
  EXPECT_TRUE(r.evict_last());
  EXPECT_EQ(r.run(0), block(10, 73));
  EXPECT_EQ(r.discarded(), 1U);
  EXPECT_EQ(put(73, "x").insert, Reassembly::Insert::stored);
}

// The naive twin: one byte per sequence number. Random ranges over a random stream, some with other bytes;
// the structure must hold exactly what the map holds, except what it said it could not take.
TEST(ReassemblyOracle, equals_a_byte_map) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    std::mt19937 random{seed};
    Buffers buffers;
    Reassembly r{40, 6};
    std::string stream(4000, ' ');
    for (char& c : stream) c = static_cast<char>('a' + random() % 26U);
    std::string other(stream);
    for (char& c : other) c = static_cast<char>(random() % 3U == 0 ? 'A' : c);
    std::map<uint32_t, char> held;
    uint32_t next = 0;
    std::string delivered;
    for (int step = 0; step < 600 && next < 3800; ++step) {
      const uint32_t at = next + (random() % 4 == 0 ? 0U : static_cast<uint32_t>(random() % 120));
      const auto length = static_cast<uint32_t>(1 + random() % 40);
      const std::string& source = random() % 8U == 0 ? other : stream;
      Slice s = slice_of(std::string_view{source}.substr(at, length), buffers);
      const auto result = r.insert(kBase + at, s, at == next);
      const bool kept = s.buffer == nullptr;
      if (!kept) buffers.free(s.buffer);
      ASSERT_EQ(kept, result.insert == Reassembly::Insert::stored);
      // What the structure has now, byte by byte.
      std::set<uint32_t> now;
      for (uint32_t i = 0; i < r.run_count(); ++i) {
        if (i > 0) {  // neither overlap nor touch
          ASSERT_LT(r.run(i - 1).end, r.run(i).begin);
        }
        ASSERT_LT(r.run(i).begin, r.run(i).end);
        for (SeqNum q = r.run(i).begin; q < r.run(i).end; q += 1) now.insert(bytes_between(kBase, q));
      }
      for (const auto& [q, c] : held) ASSERT_TRUE(now.contains(q)) << "lost " << q << " seed " << seed;
      for (const uint32_t q : now) {
        if (held.contains(q)) continue;
        ASSERT_TRUE(q >= at && q < at + length) << "invented " << q;
        held[q] = source[q];
      }
      if (result.insert == Reassembly::Insert::duplicate) {
        for (uint32_t q = at; q < at + length; ++q) ASSERT_TRUE(held.contains(q));
      }
      if (at == next && result.insert == Reassembly::Insert::stored) {
        ASSERT_TRUE(held.contains(at));
      }
      if (random() % 3U == 0) {
        const std::string got = drain(r, kBase + next, buffers);
        for (const char c : got) {
          ASSERT_EQ(held[next], c) << "seed " << seed;
          held.erase(next++);
        }
        delivered += got;
      }
      if ((result.insert == Reassembly::Insert::no_room || random() % 16U == 0) && r.evict_last()) {
        while (!held.empty() && (r.empty() || kBase + held.rbegin()->first >= r.end()))
          held.erase(std::prev(held.end()));
      }
      std::vector<void*> freed(4);
      freed.resize(r.take_discarded(freed));
      for (void* b : freed) buffers.free(b);
      ASSERT_EQ(buffers.live.size(), r.node_count() + r.discarded());
      // SACK blocks are runs, and none is named twice.
      const auto sack = blocks(r, 4);
      ASSERT_EQ(sack.size(), std::min<std::size_t>(4, r.run_count()));
      for (std::size_t i = 0; i < sack.size(); ++i) {
        bool is_run = false;
        for (uint32_t k = 0; k < r.run_count(); ++k) is_run = is_run || r.run(k) == sack[i];
        ASSERT_TRUE(is_run);
        for (std::size_t k = 0; k < i; ++k) ASSERT_NE(sack[i], sack[k]);
      }
    }
    ASSERT_GT(delivered.size(), 100U) << seed;
  }
}

}  // namespace
}  // namespace migrx

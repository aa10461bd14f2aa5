#include "loader/generate/guest_source.h"

#include <gtest/gtest.h>

#include "dataplane/handoff/byte_order.h"

namespace migrx {
namespace {

std::vector<std::byte> all_bytes(ChannelStream& stream) {
  std::vector<std::byte> out(stream.end());
  stream.read(0, out);
  return out;
}

TEST(GuestSource, channels_begin_with_init_packet_and_sync_before_any_page) {
  const GuestImage image({.seed = 1, .pages = 300});
  GuestSource source({.channels = 3}, image);
  ASSERT_EQ(source.streams(), 4U);
  for (uint32_t i = 1; i < 4; ++i) {
    const std::vector<std::byte> bytes = all_bytes(source.stream(i));
    ASSERT_EQ(bytes.size(), 64U + 1344U);
    EXPECT_EQ(load_be32(bytes.data()), 0x11223344U);
    EXPECT_EQ(std::to_integer<uint32_t>(bytes[24]), i - 1);
    EXPECT_EQ(load_be32(bytes.data() + 64 + 8), 1U);      // SYNC
    EXPECT_EQ(load_be64(bytes.data() + 64 + 24), i - 1);  // packet_num
  }
  EXPECT_EQ(source.guest_bytes(), 0U);
}

TEST(GuestSource, every_page_of_a_round_is_in_one_packet_once) {
  const GuestImage image({.seed = 2, .pages = 1000, .zero_percent = 30, .rounds = 3, .dirty_percent = 20});
  GuestSource source({.channels = 2}, image);
  source.make_all();
  std::vector<uint32_t> seen(1000);
  uint64_t zero = 0;
  for (uint32_t i = 1; i <= 2; ++i) {
    const std::vector<std::byte> bytes = all_bytes(source.stream(i));
    uint32_t syncs = 0;
    for (std::size_t at = 64; at < bytes.size();) {
      const std::byte* const p = bytes.data() + at;
      ASSERT_EQ(load_be32(p), 0x11223344U);
      const uint32_t normal = load_be32(p + 16);
      const uint32_t zeros = load_be32(p + 32);
      ASSERT_EQ(load_be32(p + 20), normal * 4096);
      ASSERT_LE(normal + zeros, 128U);
      if (load_be32(p + 8) == 1) ++syncs;
      for (uint32_t k = 0; k < normal + zeros; ++k) {
        const uint64_t page = load_be64(p + 320 + 8 * std::size_t{k}) / 4096;
        ASSERT_LT(page, 1000U);
        ++seen[page];
        const PageVersion version{page, syncs - 1};  // the SYNC before round 0 counted one
        ASSERT_EQ(image.is_zero(version), k >= normal);
        ASSERT_TRUE(image.is_sent(page, version.version));
        if (k >= normal) {
          ++zero;
          continue;
        }
        std::array<std::byte, 4096> expected;
        image.read(version, 0, expected);
        ASSERT_TRUE(std::equal(expected.begin(), expected.end(), p + 1344 + k * std::size_t{4096}));
      }
      at += 1344 + std::size_t{normal} * 4096;
    }
    EXPECT_EQ(syncs, 4U);
  }
  EXPECT_EQ(zero, source.zero_pages());
  for (uint64_t page = 0; page < 1000; ++page) {
    uint32_t expected = 0;
    for (uint32_t round = 0; round < 3; ++round) expected += image.is_sent(page, round) ? 1U : 0U;
    ASSERT_EQ(seen[page], expected) << page;
  }
}

TEST(GuestSource, rate_and_backlog_bound_what_is_made) {
  const GuestImage image({.seed = 3, .pages = 10'000});
  GuestSource source({.channels = 1, .bytes_per_second = 1'000'000'000}, image);
  source.fill(1, 2'000'000, 1'000'000'000);
  EXPECT_GE(source.stream(1).backlog(), 2'000'000U);
  EXPECT_LT(source.stream(1).backlog(), 3'000'000U);
  source.stream(1).release(source.stream(1).end());
  const uint64_t before = source.stream(1).end();
  source.fill(1, UINT64_MAX, 4'000'000);  // 4 ms: 4 MB in all
  EXPECT_GT(source.stream(1).end(), before);
  EXPECT_LT(source.stream(1).end(), 5'000'000U);
  EXPECT_FALSE(source.all_made());
}

// A large guest with hardly a dirty page: one call must not look at all of it.
TEST(GuestSource, a_call_is_bounded_when_few_pages_are_dirty) {
  const GuestImage image({.seed = 4, .pages = 600'000, .zero_percent = 100, .rounds = 2, .dirty_percent = 0});
  GuestSource source({.channels = 1}, image);
  uint32_t calls = 0;
  for (; !source.all_made(); ++calls) {
    source.fill(1, 1 << 20, 0);
    source.stream(1).release(source.stream(1).end());
  }
  // The first round's packets are bounded by their number, the second's by the pages looked at.
  EXPECT_GT(calls, 600'000U / (16 * 128) + 600'000U / (16 * 16'384));
  EXPECT_EQ(source.guest_bytes(), image.bytes());
}

TEST(GuestSource, an_empty_round_is_only_a_barrier) {
  const GuestImage image({.seed = 4, .pages = 10, .rounds = 3, .dirty_percent = 0});
  GuestSource source({.channels = 1}, image);
  source.make_all();
  EXPECT_EQ(source.guest_bytes(), 10U * 4096);
  EXPECT_EQ(source.stream(1).end(), 64U + 4 * 1344U + 1344U + 10 * 4096U);
}

}  // namespace
}  // namespace migrx

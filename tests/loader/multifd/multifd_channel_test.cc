#include "loader/multifd/multifd_channel.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/loader/guarded_memory.h"
#include "tests/loader/multifd/channel_fixture.h"

namespace migrx {
namespace {

using test::ChannelFixture;
using test::MultifdMethod;
using test::MultifdStreamBuilder;
using Builder = MultifdStreamBuilder;

class MultifdChannelTest : public ChannelFixture {};

TEST_F(MultifdChannelTest, pages_go_where_the_offsets_say) {
  Builder b;
  b.init(1);
  b.sync(0);
  b.pages(2, "mem", {0x5000, 0x6000, 0x1000, 0x3f000}, content(1), {0x9000});
  b.sync(3);
  make_channel();
  release(0);
  EXPECT_EQ(feed(b.bytes), ParseStatus::parked);
  EXPECT_TRUE(page_is(0x5000, 1) && page_is(0x6000, 1) && page_is(0x1000, 1) && page_is(0x3f000, 1));
  EXPECT_EQ(pages_written(), (std::vector<uint64_t>{1, 5, 6, 0x3f}));
  EXPECT_EQ(channel().id(), MultifdId{1});
  EXPECT_EQ(barrier().epochs_arrived(MultifdId{1}), 2U);
  EXPECT_EQ(channel().counters().packets.read(), 3U);
  EXPECT_EQ(channel().counters().syncs.read(), 2U);
  EXPECT_EQ(channel().counters().normal_pages.read(), 4U);
  EXPECT_EQ(channel().counters().payload_bytes.read(), 4U * kPageBytes);
  EXPECT_EQ(channel().counters().zero_pages_skipped.read(), 1U);
  EXPECT_EQ(channel().counters().zero_pages_written.read(), 0U);
  EXPECT_EQ(channel().expanded_bytes(), 0U);
}

TEST_F(MultifdChannelTest, every_split_point_of_a_short_stream) {
  Builder b;
  b.init(0);
  b.sync(0);
  b.pages(2, "mem", {0x2000}, content(3), {0x4000});
  b.sync(3);
  for (std::size_t cut = 0; cut <= b.bytes.size(); ++cut) {
    reset();
    make_channel();
    release(0);
    ASSERT_NE(feed(Bytes(b.bytes).first(cut)), ParseStatus::failed) << cut << channel().error().message();
    if (cut < b.bytes.size()) {
      ASSERT_EQ(feed(Bytes(b.bytes).subspan(cut)), ParseStatus::parked) << cut;
    }
    ASSERT_TRUE(page_is(0x2000, 3)) << cut;
    ASSERT_EQ(channel().offset(), b.bytes.size());
    ASSERT_EQ(barrier().epochs_arrived(MultifdId{0}), 2U) << cut;
  }
}

TEST_F(MultifdChannelTest, nothing_behind_a_sync_is_used_before_its_release) {
  Builder b;
  b.init(0);
  b.sync(0);
  b.pages(2, "mem", {0}, content(1));
  b.sync(3);
  b.pages(4, "mem", {0}, content(2));
  make_channel();
  const ParseResult first = channel().parse(b.bytes);
  EXPECT_EQ(first.status, ParseStatus::parked);
  EXPECT_EQ(first.consumed, 64U + 1344U);
  EXPECT_FALSE(channel().ready());
  EXPECT_EQ(channel().parse(Bytes(b.bytes).subspan(first.consumed)).consumed, 0U);
  EXPECT_TRUE(pages_written().empty());
  release(0);
  EXPECT_TRUE(channel().ready());
  const ParseResult second = channel().parse(Bytes(b.bytes).subspan(first.consumed));
  EXPECT_EQ(second.status, ParseStatus::parked);
  EXPECT_TRUE(page_is(0, 1));
  EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 2U);
  release(1);
  EXPECT_EQ(channel().parse(Bytes(b.bytes).subspan(first.consumed + second.consumed)).status,
            ParseStatus::need_more);
  EXPECT_TRUE(page_is(0, 2));
}

// QEMU up to 8.2: the last data packet of an epoch carries the SYNC, and an empty packet with stale fields
// follows.
TEST_F(MultifdChannelTest, a_sync_with_data_takes_effect_behind_its_payload) {
  Builder b(MultifdMethod::none, 1, true);
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x7000, 0x8000}, content(1), {}, true);
  b.empty_trailer(1);
  b.pages(2, "mem", {0x9000}, content(2));
  make_channel();
  release(0);
  const std::size_t sync_end = 64 + 1344 + 1344 + 2 * kPageBytes;
  EXPECT_EQ(channel().parse(Bytes(b.bytes).first(sync_end - 1)).status, ParseStatus::need_more);
  EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 1U);
  const ParseResult r = channel().parse(Bytes(b.bytes).subspan(sync_end - 1));
  EXPECT_EQ(r.status, ParseStatus::parked);
  EXPECT_EQ(r.consumed, 1U);
  EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 2U);
  EXPECT_TRUE(page_is(0x7000, 1) && page_is(0x8000, 1));
  release(1);
  EXPECT_EQ(feed(Bytes(b.bytes).subspan(sync_end)), ParseStatus::need_more);
  EXPECT_TRUE(page_is(0x9000, 2));
}

TEST_F(MultifdChannelTest, a_zero_page_clears_what_was_written_before_and_skips_fresh_memory) {
  Builder b;
  b.init(0);
  b.sync(0);
  b.pages(2, "mem", {0x1000}, content(1));
  b.pages(3, "mem", {}, content(1), {0x1000, 0x2000});
  make_channel();
  release(0);
  EXPECT_EQ(feed(b.bytes), ParseStatus::need_more);
  EXPECT_TRUE(page_is_zero(0x1000));
  EXPECT_EQ(pages_written(), (std::vector<uint64_t>{1}));
  EXPECT_EQ(channel().counters().zero_pages_written.read(), 1U);
  EXPECT_EQ(channel().counters().zero_pages_skipped.read(), 1U);
  EXPECT_EQ(channel().expanded_bytes(), kPageBytes);
}

TEST_F(MultifdChannelTest, a_zero_page_clears_memory_that_is_not_known_to_be_zero) {
  PageTarget target = block().target();
  target.untouched_is_zero = false;
  block().set_target(target);
  std::fill_n(block().host() + 0x2000, kPageBytes, std::byte{9});
  Builder b;
  b.init(0);
  b.sync(0);
  b.pages(3, "mem", {}, content(1), {0x2000});
  make_channel();
  release(0);
  EXPECT_EQ(feed(b.bytes), ParseStatus::need_more);
  EXPECT_TRUE(page_is_zero(0x2000));
  EXPECT_EQ(pages_written(), (std::vector<uint64_t>{2}));
}

TEST_F(MultifdChannelTest, pages_follow_the_target_of_the_block) {
  std::vector<std::byte> cache(block().used_length() + 64);
  std::byte* const base = cache.data() + (64 - reinterpret_cast<uintptr_t>(cache.data()) % 64) % 64;
  PageBitmap bits(block().pages());
  block().set_target({base, &bits, false, nullptr});
  Builder b;
  b.init(0);
  b.sync(0);
  b.pages(2, "mem", {0x3000}, content(1));
  make_channel();
  release(0);
  EXPECT_EQ(feed(b.bytes), ParseStatus::need_more);
  const std::vector<std::byte> want = content_of(0x3000, 1);
  EXPECT_TRUE(std::equal(want.begin(), want.end(), base + 0x3000));
  EXPECT_TRUE(bits.test(3));
  EXPECT_TRUE(pages_written().empty());
  EXPECT_TRUE(page_is_zero(0x3000));
}

// 9.1 and 9.2 end with a SYNC that has no marker on the main channel.
TEST_F(MultifdChannelTest, a_sync_behind_the_end_of_ram_passes) {
  Builder b;
  b.init(0);
  b.sync(0);
  b.sync(1);
  make_channel();
  EXPECT_FALSE(barrier().release_all());
  EXPECT_EQ(feed(b.bytes), ParseStatus::need_more);
  EXPECT_FALSE(channel().end_of_stream());
}

TEST_F(MultifdChannelTest, the_end_of_the_connection_is_legal_only_between_packets) {
  Builder b;
  b.init(0);
  b.sync(0);
  b.pages(2, "mem", {0x2000}, content(3));
  const std::size_t boundaries[] = {64, 64 + 1344, b.bytes.size()};
  for (std::size_t cut = 0; cut <= b.bytes.size(); ++cut) {
    reset();
    make_channel();
    release(0);
    feed(Bytes(b.bytes).first(cut));
    const StreamError error = channel().end_of_stream();
    if (std::find(std::begin(boundaries), std::end(boundaries), cut) != std::end(boundaries)) {
      ASSERT_FALSE(error) << cut << error.message();
      ASSERT_EQ(channel().closed_too_early().error_class, ErrorClass::truncated);
    } else {
      ASSERT_EQ(error.error_class, ErrorClass::truncated) << cut;
      ASSERT_EQ(error.offset, cut);
    }
  }
}

TEST_F(MultifdChannelTest, the_short_way_takes_whole_slices_of_plain_payload_only) {
  Builder b;
  b.init(0);
  b.sync(0);
  const std::size_t sync_end = b.bytes.size();
  b.pages(2, "mem", {0x1000, 0x2000, 0x8000}, content(3));
  const std::size_t payload = b.bytes.size() - 3 * kPageBytes;
  b.sync(3);
  const auto slice = [&b](std::size_t from, std::size_t to) {
    return Slice{b.bytes.data() + from, nullptr, static_cast<uint32_t>(to - from), StreamEnd::none};
  };
  make_channel();
  const std::array early{slice(0, sync_end)};
  EXPECT_EQ(channel().take_page_data(early), 0U);  // the init packet
  feed(Bytes(b.bytes).first(sync_end));
  EXPECT_EQ(channel().take_page_data(early), 0U);  // parked
  release(0);
  feed(Bytes(b.bytes).subspan(sync_end, payload + 5 - sync_end));
  const std::array slices{slice(payload + 5, payload + 4000), slice(payload + 4000, payload + 9000),
                          slice(payload + 9000, payload + 3 * kPageBytes)};
  EXPECT_EQ(channel().take_page_data(slices), 2U);  // what completes the packet is parse()'s
  EXPECT_EQ(channel().offset(), payload + 9000);
  const std::array ends{Slice{nullptr, nullptr, 0, StreamEnd::fin}};
  EXPECT_EQ(channel().take_page_data(ends), 0U);
  EXPECT_EQ(channel().end_of_stream().offset, payload + 9000);
  EXPECT_EQ(feed(Bytes(b.bytes).subspan(payload + 9000)), ParseStatus::parked);
  EXPECT_TRUE(page_is(0x1000, 3) && page_is(0x2000, 3) && page_is(0x8000, 3));
  EXPECT_EQ(pages_written(), (std::vector<uint64_t>{1, 2, 8}));
  EXPECT_EQ(channel().offset(), b.bytes.size());
}

TEST_F(MultifdChannelTest, compressed_payload_takes_the_long_way) {
  Builder b(MultifdMethod::zlib);
  b.init(0);
  b.sync(0);
  b.pages(2, "mem", {0x1000, 0x2000}, content(1));
  make_channel(MultifdCompression::zlib);
  release(0);
  const std::size_t cut = b.bytes.size() - 20;
  feed(Bytes(b.bytes).first(cut));
  const std::array slices{Slice{b.bytes.data() + cut, nullptr, 10, StreamEnd::none}};
  EXPECT_EQ(channel().take_page_data(slices), 0U);
}

TEST_F(MultifdChannelTest, a_bomb_says_how_much_it_writes_beyond_what_came) {
  Builder b(MultifdMethod::zlib);
  b.init(0);
  b.sync(0);
  const std::vector<std::byte> zeros(kPageBytes);
  b.pages(2, "mem", {0x1000, 0x2000, 0x3000, 0x4000}, [&](uint64_t) { return zeros.data(); });
  make_channel(MultifdCompression::zlib);
  release(0);
  feed(b.bytes);
  EXPECT_EQ(channel().counters().normal_pages.read(), 4U);
  EXPECT_EQ(channel().expanded_bytes(), 4 * kPageBytes - channel().counters().payload_bytes.read());
  EXPECT_GT(channel().expanded_bytes(), 3 * kPageBytes);
}

// As a burst brings them: what the short way leaves goes to parse().
TEST_F(MultifdChannelTest, bursts_of_random_slices_come_to_the_same_as_one_piece) {
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    reset();
    Builder b;
    b.init(0);
    b.sync(0);
    std::vector<uint32_t> version(block().pages());
    for (uint32_t packet = 1; packet <= 6; ++packet) {
      std::vector<uint64_t> offsets = shuffled_offsets(version.size(), random);
      offsets.resize(1 + random() % offsets.size());
      if (round % 2 == 0) std::sort(offsets.begin(), offsets.end());
      b.pages(packet, "mem", offsets, content(packet));
      for (const uint64_t offset : offsets) version[offset / kPageBytes] = packet;
    }
    b.sync(99);
    make_channel();
    release(0);
    std::size_t at = 0, short_way = 0;
    const uint32_t mss = 1 + static_cast<uint32_t>(random() % 9000);
    while (at < b.bytes.size()) {
      // Copies, each in front of an inaccessible page: what is fetched ahead of a slice must not be read.
      std::vector<std::unique_ptr<test::GuardedMemory>> buffers;
      std::vector<Slice> burst;
      std::size_t next = at;
      while (burst.size() < 1 + random() % 40 && next < b.bytes.size()) {
        const std::size_t n =
            std::min<std::size_t>(random() % 8 == 0 ? 1 + random() % mss : mss, b.bytes.size() - next);
        buffers.push_back(std::make_unique<test::GuardedMemory>(n));
        std::byte* const data = buffers.back()->end() - n;
        std::copy_n(b.bytes.begin() + static_cast<std::ptrdiff_t>(next), n, data);
        burst.push_back({data, nullptr, static_cast<uint32_t>(n), StreamEnd::none});
        next += n;
      }
      std::span<const Slice> left(burst);
      while (!left.empty()) {
        const std::size_t taken = channel().take_page_data(left);
        for (const Slice& slice : left.first(taken)) at += slice.length;
        short_way += taken;
        left = left.subspan(taken);
        if (taken > 0) {
          ASSERT_EQ(channel().offset(), at);
        }
        if (left.empty()) break;
        ASSERT_NE(feed({left[0].data, left[0].length}), ParseStatus::failed) << channel().error().message();
        at += left[0].length;
        left = left.subspan(1);
      }
    }
    EXPECT_GT(short_way, 0U);
    EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 2U);
    EXPECT_EQ(channel().offset(), b.bytes.size());
    for (uint64_t page = 0; page < block().pages(); ++page)
      ASSERT_TRUE(version[page] == 0 ? page_is_zero(page * kPageBytes)
                                     : page_is(page * kPageBytes, version[page]));
  }
}

TEST_F(MultifdChannelTest, random_pieces_over_many_packets_and_blocks) {
  std::mt19937 random(11);
  for (int round = 0; round < 10; ++round) {
    reset();
    Builder b;
    b.init(0);
    b.sync(0);
    std::vector<uint32_t> version(block().pages()), version2(block2().pages());
    for (uint32_t packet = 1; packet <= 12; ++packet) {
      const bool second = random() % 3 == 0;
      std::vector<uint32_t>& versions = second ? version2 : version;
      std::vector<uint64_t> offsets = shuffled_offsets(versions.size(), random);
      offsets.resize(1 + random() % 100 % offsets.size());
      const std::size_t zeros = random() % offsets.size();
      std::vector<uint64_t> zero(offsets.end() - static_cast<std::ptrdiff_t>(zeros), offsets.end());
      offsets.resize(offsets.size() - zeros);
      if (random() % 2 == 0) std::sort(offsets.begin(), offsets.end());
      b.pages(packet, second ? "small" : "mem", offsets, content(packet), zero);
      for (const uint64_t offset : offsets) versions[offset / kPageBytes] = packet;
      for (const uint64_t offset : zero) versions[offset / kPageBytes] = 0;
    }
    b.sync(99);
    make_channel();
    release(0);
    ParseStatus status = ParseStatus::need_more;
    for (std::size_t at = 0; at < b.bytes.size();) {
      const std::size_t n =
          std::min<std::size_t>(1 + random() % (round % 2 == 0 ? 1448 : 9000), b.bytes.size() - at);
      const std::vector<std::byte> piece(b.bytes.begin() + static_cast<std::ptrdiff_t>(at),
                                         b.bytes.begin() + static_cast<std::ptrdiff_t>(at + n));
      status = feed(piece);
      ASSERT_NE(status, ParseStatus::failed) << channel().error().message();
      at += n;
    }
    EXPECT_EQ(status, ParseStatus::parked);
    for (uint64_t page = 0; page < block().pages(); ++page)
      ASSERT_TRUE(version[page] == 0 ? page_is_zero(page * kPageBytes)
                                     : page_is(page * kPageBytes, version[page]));
    for (uint64_t page = 0; page < block2().pages(); ++page)
      ASSERT_TRUE(version2[page] == 0 ? page_is_zero(page * kPageBytes, block2())
                                      : page_is(page * kPageBytes, version2[page], block2()));
  }
}

}  // namespace
}  // namespace migrx

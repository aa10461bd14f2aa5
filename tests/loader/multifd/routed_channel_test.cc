// Blocks on another node, with made-up nodes: page data travels as copy jobs to that node's worker.
#include <gtest/gtest.h>

#include <thread>

#include "tests/loader/multifd/channel_fixture.h"

namespace migrx {
namespace {

using test::ChannelFixture;
using Builder = test::MultifdStreamBuilder;

class RoutedChannel : public ChannelFixture {
 protected:
  RoutedChannel() : lane_(4, *supported_page_kernels().back()), router_(NodeId{0}) {
    router_.add(NodeId{1}, lane_);
    reset(NodeId{1});
  }
  CopyLane lane_;
  NodeRouter router_;
};

TEST_F(RoutedChannel, data_is_needed_until_copied_and_the_sync_waits) {
  Builder b;
  b.init(0);
  b.sync(0);
  const std::size_t packet = b.bytes.size();
  b.pages(1, "mem", {0x1000, 0x2000}, content(1));
  b.sync(2);
  make_channel(MultifdCompression::none, &router_);
  release(0);
  ASSERT_EQ(feed(Bytes(b.bytes).first(packet)), ParseStatus::need_more);
  EXPECT_EQ(channel().needed_from(), ChannelParser::kNothingNeeded);

  // The piece begins with the header; its data is held from the piece's first byte on.
  const ParseResult result = channel().parse(Bytes(b.bytes).subspan(packet));
  EXPECT_EQ(result.status, ParseStatus::parked);
  EXPECT_EQ(result.consumed, b.bytes.size() - packet);
  EXPECT_EQ(channel().needed_from(), packet);
  EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 1U);
  EXPECT_FALSE(channel().ready());
  EXPECT_TRUE(page_is_zero(0x1000));

  EXPECT_EQ(lane_.serve(16), 1U);  // the two pages lie side by side: one run, one piece, one job
  EXPECT_TRUE(channel().ready());
  EXPECT_EQ(channel().needed_from(), ChannelParser::kNothingNeeded);
  EXPECT_EQ(channel().parse({}).status, ParseStatus::parked);  // at the barrier now
  EXPECT_EQ(barrier().epochs_arrived(MultifdId{0}), 2U);
  EXPECT_TRUE(page_is(0x1000, 1) && page_is(0x2000, 1));
  EXPECT_EQ(channel().counters().routed_bytes.read(), 2U * kPageBytes);
}

TEST_F(RoutedChannel, a_full_lane_parks_and_goes_on) {
  Builder b;
  b.init(0);
  b.sync(0);
  b.pages(1, "mem", {0x1000, 0x3000, 0x5000, 0x7000, 0x9000, 0xb000}, content(1));
  make_channel(MultifdCompression::none, &router_);
  release(0);
  const ParseResult first = channel().parse(b.bytes);
  EXPECT_EQ(first.status, ParseStatus::parked);
  EXPECT_EQ(first.consumed, b.bytes.size() - 2 * kPageBytes);
  EXPECT_FALSE(channel().ready());
  lane_.serve(1);
  EXPECT_TRUE(channel().ready());
  lane_.serve(16);
  EXPECT_EQ(feed(Bytes(b.bytes).subspan(first.consumed)), ParseStatus::need_more);
  lane_.serve(16);
  for (uint64_t offset = 0x1000; offset <= 0xb000; offset += 0x2000) EXPECT_TRUE(page_is(offset, 1));
}

TEST_F(RoutedChannel, blocks_of_the_own_node_and_decoded_pages_are_not_routed) {
  Builder b;
  b.init(0);
  b.sync(0);
  b.pages(1, "small", {0x1000}, content(1));
  make_channel(MultifdCompression::none, &router_);
  release(0);
  EXPECT_EQ(feed(b.bytes), ParseStatus::need_more);
  EXPECT_TRUE(page_is(0x1000, 1, block2()));

  reset(NodeId{1});
  Builder z(test::MultifdMethod::zlib);
  z.init(0);
  z.sync(0);
  z.pages(1, "mem", {0x1000}, content(2));
  make_channel(MultifdCompression::zlib, &router_);
  release(0);
  EXPECT_EQ(feed(z.bytes), ParseStatus::need_more);
  EXPECT_TRUE(page_is(0x1000, 2));
  EXPECT_EQ(lane_.pushed(), 0U);
}

// Two threads, pieces released exactly as needed_from() allows: a piece is scribbled over as soon as it may
// go.
TEST_F(RoutedChannel, two_threads_with_pieces_reused_as_soon_as_allowed) {
  std::atomic<bool> stop{false};
  std::thread server([&] {
    while (!stop.load(std::memory_order_acquire))
      if (lane_.serve(4) == 0) std::this_thread::yield();
  });
  Builder b;
  b.init(0);
  b.sync(0);
  std::mt19937 random(15);
  std::vector<uint32_t> version(block().pages());
  uint32_t epoch = 1;
  for (uint32_t packet = 1; packet <= 60; ++packet) {
    std::vector<uint64_t> offsets = shuffled_offsets(version.size(), random);
    offsets.resize(1 + random() % 60);
    b.pages(packet, "mem", offsets, content(epoch));
    for (const uint64_t offset : offsets) version[offset / kPageBytes] = epoch;
    if (packet % 5 == 0) {
      b.sync(packet);
      ++epoch;
    }
  }
  make_channel(MultifdCompression::none, &router_);
  barrier().release(Epoch{1U << 30});  // nothing has to wait
  struct Piece {
    uint64_t begin;
    std::vector<std::byte> bytes;
  };
  std::vector<Piece> held;
  std::size_t held_most = 0;
  for (std::size_t at = 0; at < b.bytes.size();) {
    const std::size_t n = std::min<std::size_t>(1448, b.bytes.size() - at);
    held.push_back({at,
                    {b.bytes.begin() + static_cast<std::ptrdiff_t>(at),
                     b.bytes.begin() + static_cast<std::ptrdiff_t>(at + n)}});
    held_most = std::max(held_most, held.size());
    Bytes left = held.back().bytes;
    for (;;) {
      const ParseResult result = channel().parse(left);
      ASSERT_NE(result.status, ParseStatus::failed) << channel().error().message();
      left = left.subspan(result.consumed);
      if (result.status == ParseStatus::need_more) break;
      while (!channel().ready()) std::this_thread::yield();
    }
    at += n;
    const uint64_t needed = channel().needed_from();
    std::erase_if(held, [&](Piece& piece) {
      if (piece.begin + piece.bytes.size() > needed) return false;
      std::fill(piece.bytes.begin(), piece.bytes.end(), std::byte{0xdd});
      return true;
    });
  }
  while (channel().needed_from() != ChannelParser::kNothingNeeded) std::this_thread::yield();
  EXPECT_EQ(channel().counters().syncs.read(), 13U);
  for (uint64_t page = 0; page < block().pages(); ++page)
    EXPECT_TRUE(version[page] == 0 ? page_is_zero(page * kPageBytes)
                                   : page_is(page * kPageBytes, version[page]));
  stop.store(true, std::memory_order_release);
  server.join();
  EXPECT_LE(held_most, 4U * 4U);
}

}  // namespace
}  // namespace migrx

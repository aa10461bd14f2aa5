// Records of the RAM section: XBZRLE, COMPRESS_PAGE with helpers, routing to other nodes, long runs of pages.
#include "loader/main/ram_section.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/loader/main/main_fixture.h"

namespace migrx {
namespace {

using test::encode_xbzrle;
using test::MainRig;
using test::MainStreamBuilder;
using test::make_page;

MainStreamBuilder stream_with(uint64_t pages) {
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", pages * kPageBytes, {}}}).ram_close();
  return b;
}

TEST(RamSection, xbzrle_patches_the_page_that_is_in_memory) {
  auto before = make_page(3);
  auto after = before;
  after[0] ^= std::byte{1};
  after[700] ^= std::byte{7};
  after[4095] ^= std::byte{0x80};
  MainStreamBuilder b = stream_with(3);
  b.ram_part().page("ram", kPageBytes, before).ram_close();
  b.ram_part().xbzrle("ram", kPageBytes, encode_xbzrle(before, after));
  std::vector<std::byte> sparse(kPageBytes);
  sparse[9] = std::byte{4};
  b.xbzrle("ram", 2 * kPageBytes,
           encode_xbzrle(std::vector<std::byte>(kPageBytes), sparse));  // never sent before
  b.xbzrle("ram", kPageBytes, {});                                      // nothing changed
  b.ram_close();
  for (const std::size_t step : {std::size_t{1}, std::size_t{9}, SIZE_MAX}) {
    MainRig rig({.xbzrle = true});
    ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes(), step)) << rig.channel.error().message();
    EXPECT_EQ(after, rig.page_at("ram", kPageBytes));
    EXPECT_EQ(sparse, rig.page_at("ram", 2 * kPageBytes));
    EXPECT_EQ(3u, rig.channel.counters().xbzrle_pages.read());
    EXPECT_EQ(2u, rig.blocks.find("ram")->written().count());
  }
}

// The record a QEMU 10.0 source sent: skip 0, two bytes; skip 289, two bytes; skip 3799, two bytes; two
// unchanged.
TEST(RamSection, xbzrle_record_of_a_real_source) {
  const unsigned char record[] = {0x00, 0x02, 0x15, 0x34, 0xa1, 0x02, 0x02,
                                  0x15, 0x34, 0xd7, 0x1d, 0x02, 0x15, 0x34};
  MainStreamBuilder b = stream_with(1);
  b.ram_part().page("ram", 0, make_page(1)).xbzrle("ram", 0, std::as_bytes(std::span(record))).ram_close();
  MainRig rig({.xbzrle = true});
  ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes())) << rig.channel.error().message();
  auto expected = make_page(1);
  for (const std::size_t at : {0x000U, 0x123U, 0xffcU}) {
    expected[at] = std::byte{0x15};
    expected[at + 1] = std::byte{0x34};
  }
  EXPECT_EQ(expected, rig.page_at("ram", 0));
}

MainStreamBuilder compressed_stream(uint64_t pages) {
  MainStreamBuilder b = stream_with(pages);
  b.ram_part();
  b.page("ram", 0, make_page(1000));
  for (uint64_t i = 1; i < pages; ++i) {
    auto page = make_page(1000 + i);
    if (i % 3 == 0)
      std::fill(page.begin() + 100, page.end(), std::byte{9});  // some that shrink, some that do not
    b.compressed("ram", i * kPageBytes, page, i % 5 == 0 ? 0 : 1);
  }
  b.ram_close();
  return b;
}

void expect_compressed_pages(MainRig& rig, uint64_t pages) {
  for (uint64_t i = 0; i < pages; ++i) {
    auto page = make_page(1000 + i);
    if (i > 0 && i % 3 == 0) std::fill(page.begin() + 100, page.end(), std::byte{9});
    ASSERT_EQ(page, rig.page_at("ram", i * kPageBytes)) << i;
  }
}

TEST(RamSection, compressed_pages_without_helpers_are_inflated_on_the_spot) {
  const MainStreamBuilder b = compressed_stream(40);
  for (const std::size_t step : {std::size_t{1}, std::size_t{1448}, SIZE_MAX}) {
    MainRig rig({.compress = true});
    ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes(), step)) << rig.channel.error().message();
    expect_compressed_pages(rig, 40);
    EXPECT_EQ(39u, rig.channel.counters().compressed_pages.read());
  }
}

// Nobody pumps the helpers: slots fill up, the rest is done on the spot, and EOS waits for what helpers still
// hold.
TEST(RamSection, eos_waits_for_helpers_and_no_longer) {
  const MainStreamBuilder b = compressed_stream(20);
  MainRig rig({.compress = true}, 2);
  ParseResult result = rig.channel.parse(b.bytes());
  ASSERT_EQ(ParseStatus::parked, result.status);
  EXPECT_FALSE(rig.channel.ready());
  EXPECT_NE("epoch 1", rig.events.log.back());
  EXPECT_EQ(4u, rig.compress.helper(0).do_work());
  EXPECT_FALSE(rig.channel.ready()) << "the other helper has not finished";
  EXPECT_EQ(4u, rig.compress.helper(1).do_work());
  EXPECT_EQ(0u, rig.compress.helper(1).do_work());
  EXPECT_TRUE(rig.channel.ready());
  ASSERT_EQ(ParseStatus::need_more, rig.feed(Bytes(b.bytes()).subspan(result.consumed)));
  EXPECT_EQ("epoch 1", rig.events.log[rig.events.log.size() - 2]);
  expect_compressed_pages(rig, 20);
}

TEST(RamSection, helpers_on_threads_inflate_what_main_submits) {
  const MainStreamBuilder b = compressed_stream(120);
  MainRig rig({.compress = true}, 2);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      while (!stop.load()) {
        if (rig.compress.helper(i).do_work() == 0) std::this_thread::yield();
      }
    });
  }
  Bytes left(b.bytes());
  ParseStatus status = ParseStatus::parked;
  while (status == ParseStatus::parked) {
    const ParseResult result = rig.channel.parse(left);
    left = left.subspan(result.consumed);
    status = result.status;
    while (status == ParseStatus::parked && !rig.channel.ready()) std::this_thread::yield();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(ParseStatus::need_more, status) << rig.channel.error().message();
  expect_compressed_pages(rig, 120);
  EXPECT_GT(rig.compress.helper(0).pages.read() + rig.compress.helper(1).pages.read(), 0u);
}

TEST(RamSection, a_helpers_failure_comes_back_at_eos_with_the_records_offset) {
  MainStreamBuilder b = stream_with(4);
  b.ram_part().page("ram", 0, make_page(0));
  b.compressed("ram", kPageBytes, make_page(1));
  const std::size_t bad_at = b.size();
  std::vector<std::byte> broken(50, std::byte{0x78});
  b.page_header("ram", 2 * kPageBytes, MainStreamBuilder::kCompressPage).be32(broken.size()).raw(broken);
  b.compressed("ram", 3 * kPageBytes, make_page(3));
  b.ram_close();
  for (const uint32_t helpers : {0U, 1U, 3U}) {
    MainRig rig({.compress = true}, helpers);
    ASSERT_EQ(ParseStatus::failed, rig.feed(b.bytes()));
    EXPECT_EQ(ErrorClass::bad_stream, rig.channel.error().error_class);
    EXPECT_EQ(bad_at, rig.channel.error().offset) << helpers;
    EXPECT_NE(std::string::npos, rig.channel.error().message().find("COMPRESS_PAGE"));
  }
}

// A stream of one page in zlib's format that is not QEMU's: longer, shorter, with bytes behind it.
TEST(RamSection, compressed_pages_must_be_exactly_one_page) {
  const auto deflated = [](std::size_t bytes) {
    MainStreamBuilder b;
    b.compressed("x", 0, make_page(5, bytes));
    return std::vector<std::byte>(b.bytes().begin() + 8 + 2 + 4, b.bytes().end());
  };
  std::vector<std::byte> trailing = deflated(4096);
  trailing.pop_back();  // no complete checksum
  const std::vector<std::vector<std::byte>> wrong = {deflated(4095), deflated(4097), deflated(1), trailing};
  for (const auto& stream : wrong) {
    if (stream.size() > kCompressedPageBytesMax) continue;
    MainStreamBuilder b = stream_with(2);
    b.ram_part().page("ram", 0, make_page(0));
    b.page_header("ram", kPageBytes, MainStreamBuilder::kCompressPage)
        .be32(stream.size())
        .raw(stream)
        .ram_close();
    MainRig rig({.compress = true});
    EXPECT_EQ(ParseStatus::failed, rig.feed(b.bytes())) << stream.size();
    EXPECT_EQ(ErrorClass::bad_stream, rig.channel.error().error_class);
  }
}

TEST(RamSection, pages_of_another_nodes_block_travel_by_its_lane) {
  MainStreamBuilder b = stream_with(16);
  b.ram_part();
  for (uint64_t i = 0; i < 16; ++i) b.page("ram", i * kPageBytes, make_page(i));
  b.ram_close();
  auto patched = make_page(0);
  patched[4000] ^= std::byte{3};
  b.ram_part().xbzrle("ram", 0, encode_xbzrle(make_page(0), patched)).ram_close();

  CopyLane lane(8, MainRig::kernels());
  NodeRouter router(NodeId{0});
  router.add(NodeId{1}, lane);
  MainRig rig({.xbzrle = true}, 0, &router);
  rig.copy_pieces = false;  // the bytes must stay while jobs are under way
  rig.events.block_node = NodeId{1};
  Bytes left(b.bytes());
  bool was_parked = false;
  bool bytes_were_needed = false;
  uint64_t turns = 0;
  for (;;) {
    const std::size_t n = std::min<std::size_t>(left.size(), 1448);
    const ParseResult result = rig.channel.parse(left.first(n));
    ASSERT_NE(ParseStatus::failed, result.status) << rig.channel.error().message();
    left = left.subspan(result.consumed);
    if (rig.channel.needed_from() != ChannelParser::kNothingNeeded) {
      bytes_were_needed = true;
      EXPECT_LE(rig.channel.needed_from(), rig.channel.offset());
    }
    if (result.status == ParseStatus::parked) {
      was_parked = true;
      EXPECT_FALSE(rig.channel.ready());
      lane.serve(3);
    } else if (left.empty()) {
      break;
    }
    ASSERT_LT(++turns, 1000u);
  }
  EXPECT_TRUE(was_parked);
  EXPECT_TRUE(bytes_were_needed);
  EXPECT_EQ(ChannelParser::kNothingNeeded, rig.channel.needed_from());
  EXPECT_EQ(16u * kPageBytes, lane.bytes_copied.read());
  EXPECT_EQ(patched, rig.page_at("ram", 0)) << "the patch waited for the copy of the section before";
  for (uint64_t i = 1; i < 16; ++i) EXPECT_EQ(make_page(i), rig.page_at("ram", i * kPageBytes));
}

// A session that takes the list but has not what it says.
TEST(RamSection, every_listed_block_must_be_there_with_its_length) {
  const MainStreamBuilder b = stream_with(4);
  {
    MainRig rig;
    rig.events.skip_blocks = true;
    ASSERT_EQ(ParseStatus::failed, rig.feed(b.bytes()));
    EXPECT_EQ(ErrorClass::mismatch, rig.channel.error().error_class);
    EXPECT_NE(std::string::npos, rig.channel.error().message().find("'ram' is not known here"));
  }
  MainRig rig;
  rig.events.skip_blocks = true;
  test::GuardedMemory memory(2 * kPageBytes);
  rig.blocks.add(std::make_unique<RamBlock>("ram", memory.data(), memory.size(), false, true, kAnyNode));
  ASSERT_EQ(ParseStatus::failed, rig.feed(b.bytes()));
  EXPECT_EQ(ErrorClass::mismatch, rig.channel.error().error_class);
  EXPECT_NE(std::string::npos,
            rig.channel.error().message().find("16384 bytes long at the source, but 8192 here"));
}

TEST(RamSection, every_kernel_writes_the_same) {
  MainStreamBuilder b = stream_with(8);
  b.ram_part();
  for (uint64_t i = 0; i < 8; ++i) b.page("ram", i * kPageBytes, make_page(i));
  b.ram_close();
  for (const PageKernels* const kernels : supported_page_kernels()) {
    MainSettings settings;
    RamBlockList blocks;
    test::RecordingEvents events(blocks);
    FlushBarrier barrier(0);
    CompressJobs compress(0, 4, *kernels);
    MainChannel channel(settings, events, blocks, barrier, compress, *kernels);
    Bytes left(b.bytes());
    while (!left.empty()) {
      const std::size_t n = std::min<std::size_t>(left.size(), 1001);
      ASSERT_EQ(n, channel.parse(left.first(n)).consumed);
      left = left.subspan(n);
    }
    for (uint64_t i = 0; i < 8; ++i)
      EXPECT_EQ(
          0, std::memcmp(make_page(i).data(), events.memory.at("ram")->data() + i * kPageBytes, kPageBytes))
          << kernels->name;
  }
}

}  // namespace
}  // namespace migrx

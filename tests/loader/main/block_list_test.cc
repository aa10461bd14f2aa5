// The MEM_SIZE list with the fields that capabilities add.
#include "loader/main/block_list.h"

#include <gtest/gtest.h>

#include "tests/loader/main/main_fixture.h"

namespace migrx {
namespace {

using test::MainRig;
using test::MainStreamBuilder;

TEST(BlockList, addresses_of_x_ignore_shared) {
  MainStreamBuilder b;
  b.header().configuration().capabilities({"x-ignore-shared"});
  b.ram_start({{"mem", 8 * kPageBytes, {0x1800000}}, {"pc.bios", kPageBytes, {0xfffc0000}}}).ram_close();
  b.ram_part().zero("pc.bios", 0).ram_close();
  for (const std::size_t step : {SIZE_MAX, std::size_t{1}}) {
    MainRig rig({.x_ignore_shared = true});
    ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes(), step)) << rig.channel.error().message();
    ASSERT_EQ(2u, rig.events.listed.size());
    EXPECT_EQ(0x1800000u, rig.events.listed[0].mr_addr);
    EXPECT_EQ(0xfffc0000u, rig.events.listed[1].mr_addr);
    EXPECT_EQ(8u * kPageBytes, rig.events.listed[0].used_length);
  }
}

// A file as QEMU 10.0 lays it out: behind each header a bitmap, a hole up to the next MiB, the pages; the
// stream goes on behind them.
TEST(BlockList, mapped_ram_headers_and_jumps) {
  constexpr uint64_t kMiB = 1 << 20;
  MainStreamBuilder b;
  std::vector<std::pair<std::size_t, uint64_t>> jumps;  // position in b, in the file
  uint64_t file_at = 0;                                 // of b's next byte
  std::size_t counted = 0;
  const auto block = [&](const char* idstr, uint64_t bytes) {
    b.str8(idstr).be64(bytes);
    file_at += b.size() - counted + 28;
    const uint64_t pages = (file_at + 8 + kMiB - 1) / kMiB * kMiB;
    b.be32(1).be64(kPageBytes).be64(file_at).be64(pages);
    counted = b.size();
    file_at = pages + bytes;
    jumps.emplace_back(b.size(), file_at);
  };
  b.header().configuration().capabilities({"mapped-ram"}).section_start(2, "ram", 0, 4);
  b.be64(12 * kPageBytes | MainStreamBuilder::kMemSize);
  block("mem", 8 * kPageBytes);
  block("pc.bios", 4 * kPageBytes);
  b.ram_close().ram_part().ram_close().ram_end().ram_close().device_tail();

  for (const std::size_t step : {SIZE_MAX, std::size_t{1}, std::size_t{11}}) {
    MainRig rig({.mapped_ram = true});
    Bytes left(b.bytes());
    std::size_t jumped = 0;
    while (!left.empty()) {
      const std::size_t n = std::min(step, left.size());
      const ParseResult result = rig.channel.parse(left.first(n));
      ASSERT_NE(ParseStatus::failed, result.status) << rig.channel.error().message();
      left = left.subspan(result.consumed);
      if (result.status != ParseStatus::parked) continue;
      ASSERT_LT(jumped, jumps.size());
      EXPECT_EQ(jumps[jumped].first, b.size() - left.size());
      ASSERT_EQ(jumps[jumped].second, rig.channel.file_position_wanted());
      EXPECT_FALSE(rig.channel.ready());
      EXPECT_EQ(ParseStatus::parked, rig.channel.parse({}).status);
      rig.channel.file_position_reached();
      EXPECT_TRUE(rig.channel.ready());
      ++jumped;
    }
    EXPECT_EQ(2u, jumped);
    ASSERT_EQ(2u, rig.events.listed.size());
    EXPECT_EQ(kMiB, rig.events.listed[0].mapped_ram->pages_offset);
    EXPECT_EQ(2 * kMiB, rig.events.listed[1].mapped_ram->pages_offset);
    EXPECT_FALSE(rig.events.tail.empty());
  }
}

TEST(BlockList, as_many_blocks_with_the_longest_names_as_are_allowed) {
  MainStreamBuilder b;
  std::vector<MainStreamBuilder::Block> blocks;
  for (std::size_t i = 0; i < kRamBlocksMax; ++i)
    blocks.push_back({std::to_string(i) + std::string(255 - std::to_string(i).size(), 'x'), kPageBytes, {}});
  b.header().configuration().ram_start(blocks);
  const std::size_t list_bytes = b.size();
  b.ram_close();
  EXPECT_LE(list_bytes, kMainEventBytesMax) << "the list fits into what writable() promises";
  MainRig rig;
  ASSERT_EQ(ParseStatus::need_more, rig.feed(b.bytes(), 1000)) << rig.channel.error().message();
  EXPECT_EQ(kRamBlocksMax, rig.events.listed.size());
}

}  // namespace
}  // namespace migrx

// Guests with thousands of RAM blocks: 250 DIMMs, and more.
#include <gtest/gtest.h>

#include <time.h>

#include "tests/loader/main/main_fixture.h"

namespace migrx {
namespace {

using test::MainRig;
using test::MainStreamBuilder;

std::string name_of(std::size_t i) {
  return "/objects/memory-of-a-dimm-" + std::to_string(i);
}

// Of this thread: what others do on the machine does not count.
double cpu_s() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Seconds for `records` page records that each name another block.
double seconds_with(std::size_t count, std::size_t records) {
  MainStreamBuilder b;
  std::vector<MainStreamBuilder::Block> blocks;
  for (std::size_t i = 0; i < count; ++i) blocks.push_back({name_of(i), kPageBytes, {}});
  b.header().configuration().ram_start(blocks).ram_close().ram_part();
  MainRig rig;
  rig.copy_pieces = false;
  EXPECT_EQ(rig.feed(b.bytes()), ParseStatus::need_more) << rig.channel.error().message();
  b.take();
  for (std::size_t i = 0; i < records; ++i) b.zero(name_of((i * 7919) % count), 0);
  const std::vector<std::byte> stream = b.take();
  const double start_s = cpu_s();
  EXPECT_EQ(rig.feed(stream), ParseStatus::need_more) << rig.channel.error().message();
  return cpu_s() - start_s;
}

// A search through the list took 40 times as long with 4096 blocks as with 16.
TEST(ManyBlocks, a_block_is_found_by_name_as_quickly_as_among_few) {
  double ratio = 1e9;
  for (int attempt = 0; attempt < 5 && ratio > 8; ++attempt) {
    const double few = seconds_with(16, 20'000);
    const double many = seconds_with(kRamBlocksMax, 20'000);
    ratio = std::min(ratio, many / few);
  }
  RecordProperty("ratio", std::to_string(ratio));
  EXPECT_LE(ratio, 8) << "the tables of 4096 blocks miss the caches more often, and no more than that";
}

TEST(ManyBlocks, a_list_of_4096_is_read_at_once) {
  const double start_s = cpu_s();
  EXPECT_GT(seconds_with(4096, 1), 0);
  EXPECT_LT(cpu_s() - start_s, 5);
}

}  // namespace
}  // namespace migrx

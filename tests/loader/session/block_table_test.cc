#include "loader/session/block_table.h"

#include <gtest/gtest.h>

#include <vector>

namespace migrx {
namespace {

BlockEntry entry(const char* idstr, uint64_t used_length) {
  return {idstr, used_length, {}, {}};
}

TEST(BlockTable, private_blocks_share_the_memory_prepared_and_go_beyond_it) {
  BlockTable table(1 << 20);
  ASSERT_EQ(table.prepare_private(64 << 10), "");
  const std::vector<BlockEntry> entries = {entry("a", 32 << 10), entry("b", 48 << 10), entry("c", 32 << 10)};
  ASSERT_FALSE(table.resolve(entries));
  const std::byte* const a = table.list().find("a")->host();
  const std::byte* const b = table.list().find("b")->host();
  const std::byte* const c = table.list().find("c")->host();
  EXPECT_EQ(c, a + (32 << 10));  // what was left
  EXPECT_TRUE(b + (48 << 10) <= a || b >= a + (64 << 10));
  for (const BlockEntry& each : entries) {
    const RamBlock& block = *table.list().find(each.idstr);
    EXPECT_TRUE(block.fresh());
    for (uint64_t i = 0; i < block.used_length(); ++i) ASSERT_EQ(block.host()[i], std::byte{0});
  }
}

TEST(BlockTable, no_more_is_prepared_than_private_blocks_may_have) {
  BlockTable table(8 << 10);
  ASSERT_EQ(table.prepare_private(1ULL << 60), "");
  EXPECT_FALSE(table.resolve(std::vector<BlockEntry>{entry("a", 8 << 10)}));
  EXPECT_TRUE(table.resolve(std::vector<BlockEntry>{entry("b", 4 << 10)}));
}

}  // namespace
}  // namespace migrx

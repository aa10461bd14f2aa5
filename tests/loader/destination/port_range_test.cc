#include "loader/destination/port_range.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

TEST(PortRange, one_port_or_two_in_their_order) {
  PortRange range;
  EXPECT_TRUE(parse_port_range("49152-49215", range));
  EXPECT_EQ(range.first, 49152);
  EXPECT_EQ(range.last, 49215);
  EXPECT_TRUE(parse_port_range("4444", range));
  EXPECT_EQ(range.last, 4444);
  EXPECT_TRUE(parse_port_range("1-65535", range));
  for (const char* const bad : {"", "-", "0-5", "5-", "-5", "6-5", "1-65536", "1-2-3", "1 -2", "a-b"})
    EXPECT_FALSE(parse_port_range(bad, range)) << bad;
}

}  // namespace
}  // namespace migrx

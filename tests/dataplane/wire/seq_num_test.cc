#include "dataplane/wire/seq_num.h"

#include <gtest/gtest.h>

#include <type_traits>

namespace migrx {
namespace {

// RFC 9293 section 3.4.
TEST(SeqNum, order_wraps) {
  const SeqNum before{0xffff'fff0};
  const SeqNum after = before + 0x20;
  EXPECT_EQ(after.value(), 0x10U);
  EXPECT_LT(before, after);
  EXPECT_GT(after, before);
  EXPECT_LE(before, before);
  EXPECT_GE(after, before);
  EXPECT_EQ(after - before, 0x20);
  EXPECT_EQ(before - after, -0x20);
  EXPECT_EQ(bytes_between(before, after), 0x20U);
  EXPECT_EQ(after - 0x20U, before);
  EXPECT_EQ(earlier(after, before), before);
  EXPECT_EQ(later(after, before), after);
}

TEST(SeqNum, order_holds_up_to_the_largest_window) {
  for (const uint32_t start : {0U, 1U, 0x7fff'ffffU, 0x8000'0000U, 0xffff'ffffU}) {
    const SeqNum a{start};
    EXPECT_LT(a, a + (1U << 30));
    EXPECT_GT(a + (1U << 30), a);
    EXPECT_LT(a, a + 0x7fff'ffff);
  }
}

// A plain integer is not a sequence number, nor the other way round.
static_assert(!std::is_convertible_v<uint32_t, SeqNum>);
static_assert(!std::is_convertible_v<SeqNum, uint32_t>);

}  // namespace
}  // namespace migrx

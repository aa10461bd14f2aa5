#include "loader/session/source_nat.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

constexpr IpAddress v4(uint32_t value) {
  return Ipv4Address{value};
}

TEST(SourceNat, without_networks_every_address_is_a_source_of_its_own) {
  const SourceNat none;
  EXPECT_EQ(none.source_of(v4(0x0a4d0001)), v4(0x0a4d0001));
  EXPECT_NE(none.source_of(v4(0x0a4d0001)), none.source_of(v4(0x0a4d0002)));
}

TEST(SourceNat, addresses_of_one_network_are_one_source_and_no_others) {
  SourceNat nat;
  nat.add({v4(0xc0000211), 28});  // 192.0.2.17/28: host bits do not matter
  nat.add({v4(0xc6336400), 32});
  EXPECT_EQ(nat.source_of(v4(0xc0000210)), nat.source_of(v4(0xc000021f)));
  EXPECT_NE(nat.source_of(v4(0xc0000210)), nat.source_of(v4(0xc0000220)));
  EXPECT_NE(nat.source_of(v4(0xc000020f)), nat.source_of(v4(0xc0000210)));
  EXPECT_EQ(nat.source_of(v4(0xc6336400)), v4(0xc6336400));
  EXPECT_NE(nat.source_of(v4(0xc6336401)), nat.source_of(v4(0xc6336400)));
  SourceNat all;
  all.add({v4(0), 0});
  EXPECT_EQ(all.source_of(v4(0xffffffff)), all.source_of(v4(1)));
}

TEST(SourceNat, networks_of_one_family_hold_no_address_of_the_other) {
  const IpAddress v6{0xfd00'0000'0000'0000, 0x1'0000'0001};
  SourceNat nat;
  nat.add({v4(0), 0});
  EXPECT_EQ(nat.source_of(v6), v6);
  nat.add({{0xfd00'0000'0000'0000, 0}, 64});
  EXPECT_EQ(nat.source_of(v6), nat.source_of({0xfd00'0000'0000'0000, 7}));
  EXPECT_NE(nat.source_of(v6), nat.source_of({0xfd00'0000'0000'0001, 7}));
  EXPECT_NE(nat.source_of(v6), nat.source_of(v4(1)));
}

}  // namespace
}  // namespace migrx

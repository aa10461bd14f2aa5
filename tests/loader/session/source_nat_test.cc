#include "loader/session/source_nat.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

TEST(SourceNat, without_networks_every_address_is_a_source_of_its_own) {
  const SourceNat none;
  EXPECT_EQ(none.source_of(0x0a4d0001), 0x0a4d0001U);
  EXPECT_NE(none.source_of(0x0a4d0001), none.source_of(0x0a4d0002));
}

TEST(SourceNat, addresses_of_one_network_are_one_source_and_no_others) {
  SourceNat nat;
  nat.add(0xc0000211, 28);  // 192.0.2.17/28: host bits do not matter
  nat.add(0xc6336400, 32);
  EXPECT_EQ(nat.source_of(0xc0000210), nat.source_of(0xc000021f));
  EXPECT_NE(nat.source_of(0xc0000210), nat.source_of(0xc0000220));
  EXPECT_NE(nat.source_of(0xc000020f), nat.source_of(0xc0000210));
  EXPECT_EQ(nat.source_of(0xc6336400), 0xc6336400U);
  EXPECT_NE(nat.source_of(0xc6336401), nat.source_of(0xc6336400));
  SourceNat all;
  all.add(0, 0);
  EXPECT_EQ(all.source_of(0xffffffff), all.source_of(1));
}

}  // namespace
}  // namespace migrx

#include "dataplane/owner_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

namespace migrx {
namespace {

FourTuple owned_tuple(uint32_t n) {
  return {Ipv4Address{0x0a000000 + n}, Ipv4Address{0x0a4d0002}, static_cast<uint16_t>(1 + n % 60000), 4444};
}

TEST(OwnerTable, connections_are_found_whatever_the_order_of_changes) {
  OwnerTable table(64, 99);
  std::map<uint32_t, uint32_t> oracle;
  std::minstd_rand random(5);
  for (uint32_t step = 0; step < 20'000; ++step) {
    const uint32_t n = static_cast<uint32_t>(random() % 200);
    const auto known = oracle.find(n);
    if (known != oracle.end()) {
      table.release(owned_tuple(n), known->second);
      oracle.erase(known);
    } else if (oracle.size() < 64) {
      const uint32_t core = static_cast<uint32_t>(random() % OwnerTable::kCoresMax);
      ASSERT_TRUE(table.claim(owned_tuple(n), core));
      oracle[n] = core;
    }
    const uint32_t probe = static_cast<uint32_t>(random() % 200);
    const auto expected = oracle.find(probe);
    ASSERT_EQ(table.find(owned_tuple(probe)),
              expected == oracle.end() ? OwnerTable::kNobody : expected->second)
        << "step " << step;
  }
}

TEST(OwnerTable, a_flood_of_handshakes_displaces_no_connection) {
  OwnerTable table(16, 3);
  for (uint32_t n = 0; n < 16; ++n) ASSERT_TRUE(table.claim(owned_tuple(n), 1));
  for (uint32_t n = 1000; n < 101'000; ++n) table.offer(owned_tuple(n), 2);
  for (uint32_t n = 0; n < 16; ++n) EXPECT_EQ(table.find(owned_tuple(n)), 1U);
  // And a connection finds a place among them; so does the newest handshake.
  for (uint32_t n = 0; n < 8; ++n) table.release(owned_tuple(n), 1);
  table.offer(owned_tuple(500), 2);
  EXPECT_EQ(table.find(owned_tuple(500)), 2U);
  ASSERT_TRUE(table.claim(owned_tuple(500), 3));
  EXPECT_EQ(table.find(owned_tuple(500)), 3U);
}

TEST(OwnerTable, only_the_owner_releases) {
  OwnerTable table(4, 3);
  ASSERT_TRUE(table.claim(owned_tuple(1), 1));
  table.release(owned_tuple(1), 0);
  EXPECT_EQ(table.find(owned_tuple(1)), 1U);
  // A handshake elsewhere does not take a living connection away.
  table.offer(owned_tuple(1), 0);
  EXPECT_EQ(table.find(owned_tuple(1)), 1U);
  table.release(owned_tuple(1), 1);
  EXPECT_EQ(table.find(owned_tuple(1)), OwnerTable::kNobody);
}

TEST(OwnerTable, two_cores_claiming_at_once_lose_nothing) {
  OwnerTable table(128, 11);
  const auto claim_own = [&table](uint32_t core) {
    for (uint32_t round = 0; round < 200; ++round) {
      for (uint32_t n = 0; n < 64; ++n) {
        const uint32_t id = core * 64 + n;
        ASSERT_TRUE(table.claim(owned_tuple(id), core));
        ASSERT_EQ(table.find(owned_tuple(id)), core);
      }
      if (round == 199) break;
      for (uint32_t n = 0; n < 64; ++n) table.release(owned_tuple(core * 64 + n), core);
    }
  };
  std::thread other(claim_own, 1);
  claim_own(0);
  other.join();
  for (uint32_t id = 0; id < 128; ++id) EXPECT_EQ(table.find(owned_tuple(id)), id / 64);
}

}  // namespace
}  // namespace migrx

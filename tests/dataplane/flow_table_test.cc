#include "dataplane/flow_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>

namespace migrx {
namespace {

FourTuple tuple_of(uint32_t n) {
  return {Ipv4Address{0x0a000000 + n / 7}, Ipv4Address{0x0a4d0002}, static_cast<uint16_t>(1 + n), 4444};
}
auto key(const FourTuple& t) {
  return std::tuple(t.remote_ip.high, t.remote_ip.low, t.local_ip.high, t.local_ip.low, t.remote_port,
                    t.local_port);
}

// Few tuples and many operations: the table is often full, and chains of probes are cut in the middle.
TEST(FlowTable, agrees_with_a_map_over_random_operations) {
  for (const uint64_t seed : {1U, 2U, 3U, 4U}) {
    constexpr uint32_t kMax = 24;
    FlowTable table(kMax, seed);
    std::map<decltype(key({})), uint32_t> oracle;
    std::mt19937_64 random(seed);
    for (uint32_t step = 0; step < 50'000; ++step) {
      const FourTuple tuple = tuple_of(static_cast<uint32_t>(random() % 60));
      const auto known = oracle.find(key(tuple));
      switch (random() % 3) {
        case 0: {
          const bool possible = known == oracle.end() && oracle.size() < kMax;
          ASSERT_EQ(table.insert(tuple, step), possible) << "seed " << seed << " step " << step;
          if (possible) oracle[key(tuple)] = step;
          break;
        }
        case 1:
          ASSERT_EQ(table.erase(tuple), known != oracle.end()) << "seed " << seed << " step " << step;
          if (known != oracle.end()) oracle.erase(known);
          break;
        default:
          ASSERT_EQ(table.find(tuple), known == oracle.end() ? FlowTable::kNone : known->second)
              << "seed " << seed << " step " << step;
      }
      ASSERT_EQ(table.size(), oracle.size());
    }
    for (uint32_t n = 0; n < 60; ++n) {
      const auto known = oracle.find(key(tuple_of(n)));
      EXPECT_EQ(table.find(tuple_of(n)), known == oracle.end() ? FlowTable::kNone : known->second);
    }
  }
}

TEST(FlowTable, every_part_of_the_tuple_counts) {
  FlowTable table(8, 7);
  const FourTuple base = tuple_of(1);
  ASSERT_TRUE(table.insert(base, 5));
  FourTuple other = base;
  other.remote_ip.low += 1;
  EXPECT_EQ(table.find(other), FlowTable::kNone);
  other = base;
  other.local_ip.low += 1;
  EXPECT_EQ(table.find(other), FlowTable::kNone);
  other = base;
  other.remote_port += 1;
  EXPECT_EQ(table.find(other), FlowTable::kNone);
  other = base;
  other.local_port += 1;
  EXPECT_EQ(table.find(other), FlowTable::kNone);
  EXPECT_EQ(table.find(base), 5U);
}

}  // namespace
}  // namespace migrx

#include "dataplane/handoff/spsc_ring.h"

#include <gtest/gtest.h>

#include <thread>

namespace migrx {
namespace {

TEST(SpscRing, is_empty_then_full_then_empty) {
  SpscRing<int> ring(4);
  int value = 0;
  EXPECT_FALSE(ring.pop(value));
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(ring.push(i));
  EXPECT_FALSE(ring.push(4));
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(ring.pop(value));
    EXPECT_EQ(value, i);
  }
  EXPECT_FALSE(ring.pop(value));
}

TEST(SpscRing, two_threads_exchange_in_order) {
  SpscRing<uint64_t> ring(64);
  constexpr uint64_t kCount = 200'000;
  std::thread producer([&] {
    for (uint64_t i = 0; i < kCount;)
      if (ring.push(i))
        ++i;
      else
        std::this_thread::yield();
  });
  for (uint64_t expected = 0; expected < kCount;) {
    uint64_t value = 0;
    if (ring.pop(value))
      ASSERT_EQ(value, expected++);
    else
      std::this_thread::yield();
  }
  producer.join();
}

}  // namespace
}  // namespace migrx

#include "loader/destination/byte_fifo.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace migrx {
namespace {

TEST(ByteFifo, takes_what_fits_and_wraps) {
  ByteFifo fifo(8);
  const std::vector<std::byte> in(6, std::byte{7});
  EXPECT_EQ(fifo.write(in), 6U);
  EXPECT_EQ(fifo.write(in), 2U);
  EXPECT_EQ(fifo.room(), 0U);
  EXPECT_EQ(fifo.readable().size(), 8U);
  fifo.consume(5);
  EXPECT_EQ(fifo.write(in), 5U);
  EXPECT_EQ(fifo.readable().size(), 3U);  // up to the wrap
  fifo.consume(3);
  EXPECT_EQ(fifo.readable().size(), 5U);
}

TEST(ByteFifo, two_threads_see_the_same_bytes) {
  ByteFifo fifo(256);
  constexpr std::size_t kTotal = 1 << 20;
  std::thread producer([&] {
    std::byte chunk[37];
    for (std::size_t sent = 0; sent < kTotal;) {
      const std::size_t n = std::min(sizeof chunk, kTotal - sent);
      for (std::size_t i = 0; i < n; ++i) chunk[i] = static_cast<std::byte>((sent + i) * 31);
      const std::size_t taken = fifo.write({chunk, n});
      sent += taken;
      if (taken == 0) std::this_thread::yield();
    }
  });
  for (std::size_t seen = 0; seen < kTotal;) {
    const Bytes bytes = fifo.readable();
    if (bytes.empty()) std::this_thread::yield();
    for (std::size_t i = 0; i < bytes.size(); ++i)
      ASSERT_EQ(bytes[i], static_cast<std::byte>((seen + i) * 31));
    seen += bytes.size();
    fifo.consume(bytes.size());
  }
  producer.join();
}

}  // namespace
}  // namespace migrx

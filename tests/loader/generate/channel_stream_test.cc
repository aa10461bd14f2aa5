#include "loader/generate/channel_stream.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace migrx {
namespace {

// Heads and pages in any order, read in any pieces, also backwards: as if all bytes lay in one vector.
TEST(ChannelStream, reads_as_one_run_of_bytes_until_released) {
  const GuestImage image({.seed = 1, .pages = 1000});
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random{seed};
    ChannelStream stream(image);
    std::vector<std::byte> twin;
    std::set<uint64_t> ends;
    uint64_t released = 0;
    for (int step = 0; step < 400; ++step) {
      if (random() % 3 == 0) {
        std::vector<std::byte> head(random() % 3 == 0 ? 0 : random() % 2000);
        for (std::byte& b : head) b = static_cast<std::byte>(random());
        std::vector<PageVersion> pages(random() % 4);
        for (PageVersion& page : pages) page = {random() % 1000, static_cast<uint32_t>(random() % 3)};
        twin.insert(twin.end(), head.begin(), head.end());
        ends.insert(twin.size());
        for (const PageVersion& page : pages) {
          twin.resize(twin.size() + kGuestPageBytes);
          image.read(page, 0, std::span{twin}.last(kGuestPageBytes));
          ends.insert(twin.size());
        }
        stream.append(std::move(head), std::move(pages));
        ASSERT_EQ(stream.end(), twin.size());
      }
      if (twin.size() == released) continue;
      const uint64_t offset = released + random() % (twin.size() - released);
      std::vector<std::byte> out(std::min<uint64_t>(1 + random() % 9000, twin.size() - offset));
      stream.read(offset, out);
      ASSERT_TRUE(std::equal(out.begin(), out.end(), twin.begin() + static_cast<std::ptrdiff_t>(offset)));
      // An element is one head or one page, and the bytes of one never cross into the next.
      const uint64_t element_end = stream.element_end(offset);
      ASSERT_GT(element_end, offset);
      ASSERT_LE(element_end, twin.size());
      ASSERT_TRUE(ends.contains(element_end));
      ASSERT_EQ(ends.upper_bound(offset), ends.find(element_end));
      if (random() % 4 == 0) {
        released += random() % (twin.size() - released + 1) / 2;
        stream.release(released);
        ASSERT_EQ(stream.backlog(), twin.size() - released);
      }
    }
  }
}

}  // namespace
}  // namespace migrx

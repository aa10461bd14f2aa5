#include "loader/generate/guest_image.h"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <string>
#include <vector>

namespace migrx {
namespace {

using Page = std::array<std::byte, kGuestPageBytes>;

Page whole(const GuestImage& image, PageVersion page) {
  Page out;
  image.read(page, 0, out);
  return out;
}

TEST(GuestImage, pieces_of_a_page_make_the_page) {
  const GuestImage image({.seed = 5, .pages = 64, .zero_percent = 20, .compressible_percent = 40});
  for (uint64_t page = 0; page < 64; ++page) {
    const PageVersion version{page, static_cast<uint32_t>(page % 3)};
    const Page all = whole(image, version);
    Page pieced;
    // Cuts before, inside and behind the stamps.
    for (uint32_t at = 0, step = 1; at < kGuestPageBytes; at += step, step = step * 7 % 1031 + 1) {
      step = std::min(step, kGuestPageBytes - at);
      image.read(version, at, std::span{pieced}.subspan(at, step));
    }
    ASSERT_EQ(all, pieced) << page;
  }
}

TEST(GuestImage, same_seed_same_guest_and_no_two_pages_alike) {
  const GuestImageSettings settings{.seed = 9, .pages = 2000, .pool_pages = 8};
  const GuestImage one(settings);
  const GuestImage two(settings);
  const GuestImage other({.seed = 10, .pages = 2000, .pool_pages = 8});
  std::set<std::string> quarters;
  for (uint64_t page = 0; page < 2000; ++page) {
    const Page content = whole(one, {page, 0});
    ASSERT_EQ(content, whole(two, {page, 0}));
    ASSERT_NE(content, whole(other, {page, 0}));
    ASSERT_NE(content, whole(one, {page, 1}));
    // Each quarter alone tells where it belongs.
    for (std::size_t at = 0; at < kGuestPageBytes; at += 1024)
      ASSERT_TRUE(quarters.insert({reinterpret_cast<const char*>(content.data()) + at, 1024}).second);
  }
}

TEST(GuestImage, mix_and_dirty_rate_are_what_was_asked_for) {
  const GuestImage image({.seed = 3, .pages = 20'000, .zero_percent = 30, .rounds = 5, .dirty_percent = 10});
  uint64_t zero = 0;
  uint64_t sent = 0;
  uint64_t last_changed = 0;
  for (uint64_t page = 0; page < 20'000; ++page) {
    if (image.is_zero({page, 0})) {
      ++zero;
      ASSERT_EQ(whole(image, {page, 0}), Page{});
    }
    uint32_t newest = 0;
    for (uint32_t round = 1; round < 5; ++round) {
      if (!image.is_sent(page, round)) continue;
      ++sent;
      newest = round;
    }
    ASSERT_EQ(image.last_version(page).version, newest);
    if (newest > 0) ++last_changed;
  }
  EXPECT_NEAR(static_cast<double>(zero), 6000, 300);
  EXPECT_NEAR(static_cast<double>(sent), 8000, 300);
  EXPECT_NEAR(static_cast<double>(last_changed), 20'000 * (1 - 0.6561), 300);
}

}  // namespace
}  // namespace migrx

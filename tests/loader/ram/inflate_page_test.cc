#include "loader/ram/inflate_page.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "tests/loader/guarded_memory.h"
#include "tests/loader/multifd_stream_builder.h"

namespace migrx {
namespace {

using Buffer = std::vector<std::byte>;
using test::GuardedMemory;
using test::MultifdStreamBuilder;

Buffer page_of_kind(uint32_t kind, uint32_t seed) {
  std::mt19937 random(seed);
  Buffer page(kPageBytes);
  for (std::size_t i = 0; i < page.size(); ++i)
    page[i] = static_cast<std::byte>(kind == 0 ? 0 : kind == 1 ? random() : kind == 2 ? i / 7 : random() % 4);
  return page;
}

class InflatePage : public testing::Test {
 protected:
  InflatePage() { std::fill(memory_.data(), memory_.end(), std::byte{0xee}); }
  InflateStatus inflate(PageFormat format, const Buffer& in) {
    GuardedMemory guarded(in.size() + 1);
    std::copy(in.begin(), in.end(), guarded.end() - in.size());
    return inflater_.inflate(format, {guarded.end() - in.size(), in.size()}, memory_.data());
  }
  [[nodiscard]] bool untouched() const {
    return std::all_of(memory_.data(), memory_.end(), [](std::byte b) { return b == std::byte{0xee}; });
  }

  GuardedMemory memory_{kPageBytes};
  PageInflater inflater_{*supported_page_kernels().back()};
};

TEST_F(InflatePage, zlib_and_raw_pages_of_every_level) {
  for (const int level : {0, 1, 6, 9})
    for (uint32_t kind = 0; kind < 4; ++kind) {
      const Buffer page = page_of_kind(kind, 7);
      const Buffer zlib = MultifdStreamBuilder::deflate_whole(page.data(), page.size(), level, 15);
      EXPECT_LE(zlib.size(), kCompressedPageBytesMax);
      ASSERT_EQ(inflate(PageFormat::zlib, zlib), InflateStatus::ok);
      ASSERT_TRUE(std::equal(page.begin(), page.end(), memory_.data()));
      std::fill(memory_.data(), memory_.end(), std::byte{0xee});
      ASSERT_EQ(inflate(PageFormat::raw_deflate,
                        MultifdStreamBuilder::deflate_whole(page.data(), page.size(), level, -15)),
                InflateStatus::ok);
      ASSERT_TRUE(std::equal(page.begin(), page.end(), memory_.data()));
    }
}

TEST_F(InflatePage, any_truncation_is_refused_and_writes_nothing) {
  const Buffer page = page_of_kind(3, 8);
  const Buffer whole = MultifdStreamBuilder::deflate_whole(page.data(), page.size(), 6, 15);
  for (std::size_t n = 0; n < whole.size(); ++n)
    ASSERT_NE(
        inflate(PageFormat::zlib, Buffer(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n))),
        InflateStatus::ok)
        << n;
  EXPECT_TRUE(untouched());
}

// Adler-32 is weak for pages of small values: some damaged streams are legal. zlib is the judge.
TEST_F(InflatePage, streams_with_a_flipped_bit_are_judged_as_by_zlib) {
  for (uint32_t kind = 2; kind < 4; ++kind) {
    const Buffer page = page_of_kind(kind, 9);
    const Buffer whole = MultifdStreamBuilder::deflate_whole(page.data(), page.size(), 6, 15);
    std::size_t refused = 0;
    for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
      Buffer damaged = whole;
      damaged[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      Buffer want(kPageBytes + 1);
      uLongf size = want.size();
      uLong used = damaged.size();
      const bool legal = uncompress2(reinterpret_cast<Bytef*>(want.data()), &size,
                                     reinterpret_cast<const Bytef*>(damaged.data()), &used) == Z_OK &&
                         size == kPageBytes && used == damaged.size();
      ASSERT_EQ(inflate(PageFormat::zlib, damaged) == InflateStatus::ok, legal) << bit;
      if (legal) {
        ASSERT_TRUE(std::equal(memory_.data(), memory_.end(), want.begin())) << bit;
      }
      refused += legal ? 0 : 1;
    }
    EXPECT_GT(refused, 8 * whole.size() * 95 / 100);
  }
}

TEST_F(InflatePage, wrong_sizes_and_trailing_bytes_are_told_apart) {
  const Buffer large(2 * kPageBytes, std::byte{3});
  for (const std::size_t n : {std::size_t{0}, std::size_t{kPageBytes - 1}, std::size_t{kPageBytes + 1},
                              std::size_t{kPageBytes + 2}, std::size_t{2 * kPageBytes}})
    EXPECT_EQ(inflate(PageFormat::zlib, MultifdStreamBuilder::deflate_whole(large.data(), n, 6, 15)),
              InflateStatus::wrong_size)
        << n;
  Buffer trailing = MultifdStreamBuilder::deflate_whole(large.data(), kPageBytes, 6, 15);
  trailing.push_back(std::byte{0});
  EXPECT_EQ(inflate(PageFormat::zlib, trailing), InflateStatus::input_left);
  EXPECT_EQ(inflate(PageFormat::zlib, {}), InflateStatus::not_finished);
  EXPECT_TRUE(untouched());
}

TEST_F(InflatePage, random_bytes_never_write) {
  std::mt19937 random(10);
  for (int round = 0; round < 3000; ++round) {
    Buffer in(1 + random() % 300);
    for (std::byte& b : in) b = static_cast<std::byte>(random());
    in[0] = std::byte{0x78};
    if (in.size() > 1) in[1] = std::byte{0x9c};
    ASSERT_NE(inflate(PageFormat::zlib, in), InflateStatus::ok);
  }
  EXPECT_TRUE(untouched());
}

}  // namespace
}  // namespace migrx

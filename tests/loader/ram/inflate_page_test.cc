#include "loader/ram/inflate_page.h"

#include <gtest/gtest.h>
#include <isa-l/igzip_lib.h>

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

// Both decoders lean on this: ISA-L's loops are assembly, which no sanitizer watches, and they copy matches
// in wide strides. The room ends at an inaccessible page.
TEST(IsaL, never_writes_beyond_the_room_it_is_given) {
  Buffer large;
  for (uint32_t i = 0; i < 40; ++i) {
    const Buffer more = page_of_kind(i % 4, i);
    large.insert(large.end(), more.begin(), more.end());
  }
  for (const int level : {1, 9}) {
    const Buffer raw = MultifdStreamBuilder::deflate_whole(large.data(), large.size(), level, -15);
    const auto state = std::make_unique<inflate_state>();
    for (std::size_t room = 1; room < 2 * kPageBytes; room += room < 400 ? 1 : 37) {
      GuardedMemory out(room);
      isal_inflate_init(state.get());
      state->next_in = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(raw.data()));
      state->avail_in = static_cast<uint32_t>(raw.size());
      state->next_out = reinterpret_cast<uint8_t*>(out.end() - room);
      state->avail_out = static_cast<uint32_t>(room);
      ASSERT_EQ(isal_inflate_stateless(state.get()), ISAL_OUT_OVERFLOW);
      ASSERT_EQ(state->avail_out, 0U);
      ASSERT_TRUE(std::equal(out.end() - room, out.end(), large.begin()));
    }
    GuardedMemory out(large.size());
    for (const std::size_t step : {std::size_t{999}, std::size_t{5000}, std::size_t{70001}}) {
      isal_inflate_init(state.get());
      state->next_in = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(raw.data()));
      state->avail_in = static_cast<uint32_t>(raw.size());
      for (std::size_t at = 0; at < large.size();) {
        const std::size_t room = std::min(step, large.size() - at);
        state->next_out = reinterpret_cast<uint8_t*>(out.end() - room);
        state->avail_out = static_cast<uint32_t>(room);
        ASSERT_GE(isal_inflate(state.get()), 0);
        const std::size_t got = room - state->avail_out;
        ASSERT_GT(got, 0U);
        ASSERT_TRUE(std::equal(out.end() - room, out.end() - (room - got),
                               large.begin() + static_cast<std::ptrdiff_t>(at)));
        at += got;
      }
    }
  }
}

}  // namespace
}  // namespace migrx

#include "loader/ram/page_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <vector>

#include "tests/loader/guarded_memory.h"

namespace migrx {
namespace {

using test::GuardedMemory;

std::vector<std::byte> random_bytes(std::size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> out(n);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

class EachKernel : public testing::TestWithParam<const PageKernels*> {};
INSTANTIATE_TEST_SUITE_P(Kernels, EachKernel,
                         testing::ValuesIn(supported_page_kernels().begin(), supported_page_kernels().end()),
                         [](const auto& kernel) { return std::string(kernel.param->name); });

TEST_P(EachKernel, random_pieces_give_the_same_bytes_as_memcpy) {
  std::mt19937 random(1);
  GuardedMemory memory(64 * 1024);
  for (int round = 0; round < 60; ++round) {
    const std::vector<std::byte> source = random_bytes(memory.size(), static_cast<uint32_t>(round));
    std::fill(memory.data(), memory.end(), std::byte{0xee});
    PageWriter writer(*GetParam());
    const std::size_t piece_max = round % 3 == 0 ? 80 : round % 3 == 1 ? 1448 : 9000;
    const std::size_t begin = 64 * (random() % 32);
    const std::size_t length = random() % (memory.size() - begin);
    writer.seek(memory.data() + begin);
    for (std::size_t at = 0; at < length;) {
      const std::size_t n = std::min<std::size_t>(random() % piece_max, length - at);
      // The piece is freed right behind the call, and must not be read beyond its end.
      GuardedMemory piece(n);
      std::copy_n(source.data() + begin + at, n, piece.end() - n);
      writer.write({piece.end() - n, n});
      ASSERT_EQ(writer.position(), memory.data() + begin + at + n);
      if (random() % 7 == 0) writer.flush();
      at += n;
    }
    writer.fence();
    for (std::size_t i = 0; i < memory.size(); ++i) {
      const bool inside = i >= begin && i < begin + length;
      ASSERT_EQ(memory.data()[i], inside ? source[i] : std::byte{0xee}) << round << " " << i;
    }
  }
}

TEST_P(EachKernel, pieces_may_begin_right_behind_an_inaccessible_page) {
  GuardedMemory memory(4096);
  const std::vector<std::byte> source = random_bytes(4096, 2);
  PageWriter writer(*GetParam());
  writer.seek(memory.data());
  for (std::size_t at = 0, n = 1; at < source.size(); at += n, n = std::min<std::size_t>(n + 1, 4096 - at)) {
    GuardedMemory piece(n);
    std::copy_n(source.data() + at, n, piece.data());
    writer.write({piece.data(), n});
  }
  writer.fence();
  EXPECT_TRUE(std::equal(source.begin(), source.end(), memory.data()));
}

TEST_P(EachKernel, seek_stores_the_unfinished_line_of_the_place_before) {
  GuardedMemory memory(2 * 4096);
  const std::vector<std::byte> source = random_bytes(100, 3);
  PageWriter writer(*GetParam());
  writer.seek(memory.data());
  writer.write(source);
  writer.seek(memory.data() + 4096);
  writer.write(Bytes(source).first(10));
  writer.fence();
  EXPECT_TRUE(std::equal(source.begin(), source.end(), memory.data()));
  EXPECT_EQ(memory.data()[100], std::byte{0});
  EXPECT_TRUE(std::equal(source.begin(), source.begin() + 10, memory.data() + 4096));
}

TEST_P(EachKernel, clear_page_and_copy_page_touch_one_page) {
  GuardedMemory memory(3 * 4096);
  std::fill(memory.data(), memory.end(), std::byte{7});
  PageWriter writer(*GetParam());
  writer.clear_page(memory.data() + 4096);
  writer.fence();
  EXPECT_TRUE(GetParam()->is_zero(memory.data() + 4096, 4096));
  EXPECT_EQ(memory.data()[4095], std::byte{7});
  EXPECT_EQ(memory.data()[8192], std::byte{7});
  const std::vector<std::byte> source = random_bytes(4096, 4);
  writer.copy_page(memory.data() + 4096, source.data());
  writer.fence();
  EXPECT_TRUE(std::equal(source.begin(), source.end(), memory.data() + 4096));
  EXPECT_EQ(memory.data()[4095], std::byte{7});
  EXPECT_EQ(memory.data()[8192], std::byte{7});
}

TEST_P(EachKernel, is_zero_sees_every_single_byte) {
  GuardedMemory memory(4096);
  EXPECT_TRUE(GetParam()->is_zero(memory.data(), 4096));
  EXPECT_TRUE(GetParam()->is_zero(memory.data() + 1, 4096 - 64));
  for (std::size_t i = 0; i < 4096; ++i) {
    memory.data()[i] = std::byte{0x80};
    EXPECT_FALSE(GetParam()->is_zero(memory.data(), 4096)) << i;
    memory.data()[i] = std::byte{0};
  }
}

struct ForcedKernel {
  explicit ForcedKernel(const char* name) { setenv("MIGRX_FORCE_KERNEL", name, 1); }
  ~ForcedKernel() { unsetenv("MIGRX_FORCE_KERNEL"); }
};

TEST_P(EachKernel, the_forced_kernel_is_the_one_that_runs) {
  const ForcedKernel forced(GetParam()->name);
  std::string error;
  EXPECT_EQ(select_page_kernels(error), GetParam());
  EXPECT_EQ(error, "");
}

TEST(SelectPageKernels, an_unknown_name_is_refused_with_the_names_there_are) {
  const ForcedKernel forced("altivec");
  std::string error;
  EXPECT_EQ(select_page_kernels(error), nullptr);
  EXPECT_NE(error.find("MIGRX_FORCE_KERNEL=altivec"), std::string::npos) << error;
  EXPECT_NE(error.find("scalar"), std::string::npos) << error;
}

TEST(SelectPageKernels, without_force_the_last_supported_one_runs) {
  std::string error;
  EXPECT_EQ(select_page_kernels(error), supported_page_kernels().back());
  EXPECT_EQ(supported_page_kernels().front(), find_page_kernels("scalar"));
}

TEST(PageBitmap, a_range_sets_the_same_bits_as_page_by_page) {
  for (uint64_t first = 0; first < 70; ++first)
    for (const uint64_t count : {0ULL, 1ULL, 63ULL, 64ULL, 65ULL, 128ULL}) {
      PageBitmap by_range(200), one_by_one(200);
      by_range.set_range(first, count);
      for (uint64_t i = 0; i < count; ++i) one_by_one.set(first + i);
      for (uint64_t i = 0; i < 200; ++i)
        ASSERT_EQ(by_range.test(i), one_by_one.test(i)) << first << " " << count;
    }
}

}  // namespace
}  // namespace migrx

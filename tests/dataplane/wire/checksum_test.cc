#include "dataplane/wire/checksum.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

namespace migrx {
namespace {

// RFC 1071 section 1, word by word, as slowly as it is written there.
uint16_t naive_checksum(Bytes bytes) {
  uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    const uint32_t high = std::to_integer<uint32_t>(bytes[i]);
    const uint32_t low = i + 1 < bytes.size() ? std::to_integer<uint32_t>(bytes[i + 1]) : 0;
    sum += high << 8 | low;
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>(~sum);
}

std::vector<std::byte> random_bytes(std::mt19937& random, std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (auto& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

// RFC 1071 section 3 sums 00 01 f2 03 f4 f5 f6 f7 to ddf2.
TEST(Checksum, rfc_1071_example) {
  const std::array<std::byte, 8> bytes{std::byte{0x00}, std::byte{0x01}, std::byte{0xf2}, std::byte{0x03},
                                       std::byte{0xf4}, std::byte{0xf5}, std::byte{0xf6}, std::byte{0xf7}};
  ChecksumSum sum;
  sum.add(bytes);
  EXPECT_EQ(sum.checksum(), static_cast<uint16_t>(~0xddf2));
}

TEST(Checksum, equals_naive_at_every_length_and_alignment) {
  std::mt19937 random{1};
  const auto bytes = random_bytes(random, 512);
  for (std::size_t offset = 0; offset < 9; ++offset) {
    for (std::size_t n = 0; n <= 300; ++n) {
      const Bytes piece = Bytes{bytes}.subspan(offset, n);
      ChecksumSum sum;
      sum.add(piece);
      ASSERT_EQ(sum.checksum(), naive_checksum(piece)) << offset << " " << n;
    }
  }
}

TEST(Checksum, pieces_equal_the_whole_also_when_cut_at_odd_places) {
  std::mt19937 random{2};
  for (int round = 0; round < 300; ++round) {
    const auto bytes = random_bytes(random, 1 + random() % 9000);
    ChecksumSum sum;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t n = std::min<std::size_t>(random() % 700, bytes.size() - at);
      sum.add(Bytes{bytes}.subspan(at, n));
      at += n;
    }
    ASSERT_EQ(sum.checksum(), naive_checksum(bytes)) << round;
  }
}

// Every carry there can be.
TEST(Checksum, all_ones_do_not_overflow) {
  const std::vector<std::byte> bytes(65535, std::byte{0xff});
  ChecksumSum sum;
  for (int i = 0; i < 64; ++i) sum.add(Bytes{bytes}.first(65534));
  EXPECT_EQ(sum.folded(), 0xffff);
}

#if defined(__x86_64__)
TEST(Checksum, forms_agree) {
  if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "needs AVX2";
  std::mt19937 random{3};
  for (int round = 0; round < 200; ++round) {
    const auto bytes = random_bytes(random, random() % 4000);
    ASSERT_EQ(checksum_partial_avx2(bytes) % 0xffff, checksum_partial_u64(bytes) % 0xffff);
  }
}
#endif

}  // namespace
}  // namespace migrx

#include "dataplane/wire/checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace migrx {
namespace {

// Up to 15 bytes that are left after the wide loop. A last odd byte is the low half of a little-endian word,
// as if a zero byte followed it (RFC 1071 section 4.1).
uint64_t tail_sum(const std::byte* p, std::size_t n) noexcept {
  uint64_t sum = 0;
  for (; n >= 4; p += 4, n -= 4) {
    uint32_t v;
    std::memcpy(&v, p, sizeof v);
    sum += v;
  }
  uint32_t last = 0;
  std::memcpy(&last, p, n);
  return sum + last;
}

using PartialSum = uint64_t (*)(Bytes) noexcept;

PartialSum choose() noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return checksum_partial_avx2;
#endif
  return checksum_partial_u64;
}
const PartialSum kPartial = choose();

}  // namespace

// 32-bit words are summed in 64-bit accumulators, so that carries need no care below 16 GiB: 2^32 is
// congruent to 1 modulo 0xffff, hence the sum of 32-bit words folds to the same as that of 16-bit words.
uint64_t checksum_partial_u64(Bytes piece) noexcept {
  const std::byte* p = piece.data();
  std::size_t n = piece.size();
  uint64_t low = 0;
  uint64_t high = 0;
  for (; n >= 16; p += 16, n -= 16) {
    uint64_t v[2];
    std::memcpy(v, p, sizeof v);
    low += (v[0] & 0xffff'ffff) + (v[1] & 0xffff'ffff);
    high += (v[0] >> 32) + (v[1] >> 32);
  }
  return low + high + tail_sum(p, n);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t checksum_partial_avx2(Bytes piece) noexcept {
  const std::byte* p = piece.data();
  std::size_t n = piece.size();
  const __m256i low_half = _mm256_set1_epi64x(0xffff'ffff);
  __m256i low[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  __m256i high[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (; n >= 64; p += 64, n -= 64) {
    for (int i = 0; i < 2; ++i) {
      const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p) + i);
      low[i] = _mm256_add_epi64(low[i], _mm256_and_si256(v, low_half));
      high[i] = _mm256_add_epi64(high[i], _mm256_srli_epi64(v, 32));
    }
  }
  const __m256i sum4 = _mm256_add_epi64(_mm256_add_epi64(low[0], low[1]), _mm256_add_epi64(high[0], high[1]));
  const __m128i sum2 = _mm_add_epi64(_mm256_castsi256_si128(sum4), _mm256_extracti128_si256(sum4, 1));
  const uint64_t sum =
      static_cast<uint64_t>(_mm_cvtsi128_si64(sum2)) + static_cast<uint64_t>(_mm_extract_epi64(sum2, 1));
  return sum + checksum_partial_u64({p, n});
}
#endif

uint64_t checksum_partial(Bytes piece) noexcept {
  return kPartial(piece);
}

void ChecksumSum::add(Bytes piece) noexcept {
  uint64_t part = checksum_partial(piece);
  part = (part & 0xffff'ffff) + (part >> 32);
  part = (part & 0xffff'ffff) + (part >> 32);
  // RFC 1071 section 2 (B): swapping the bytes of every word swaps the bytes of the sum.
  if (odd_) part <<= 8;
  add_aligned(part);
  if (piece.size() % 2 != 0) odd_ = !odd_;
}

uint16_t ChecksumSum::folded() const noexcept {
  uint64_t s = (sum_ & 0xffff'ffff) + (sum_ >> 32);
  s = (s & 0xffff) + (s >> 16);
  s = (s & 0xffff) + (s >> 16);
  s = (s & 0xffff) + (s >> 16);
  return static_cast<uint16_t>(s);
}

}  // namespace migrx

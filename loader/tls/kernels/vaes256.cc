// Two blocks per vector, eight vectors in flight: AVX2 with VAES and VPCLMULQDQ (Zen 3, Alder Lake).
#include "loader/tls/kernels/gcm_loop.h"

namespace migrx {
namespace {

struct Ops {
  using Vector = __m256i;
  static constexpr std::size_t kWidth = 2;
  static constexpr std::size_t kVectors = 8;
  [[gnu::always_inline]] static Vector load(const void* p) noexcept {
    return _mm256_loadu_si256(static_cast<const Vector*>(p));
  }
  [[gnu::always_inline]] static void store(void* p, Vector v) noexcept {
    _mm256_storeu_si256(static_cast<Vector*>(p), v);
  }
  [[gnu::always_inline]] static void stream(void* p, Vector v) noexcept {
    _mm256_stream_si256(static_cast<Vector*>(p), v);
  }
  [[gnu::always_inline]] static Vector exclusive_or(Vector a, Vector b) noexcept {
    return _mm256_xor_si256(a, b);
  }
  [[gnu::always_inline]] static Vector spread(Block v) noexcept { return _mm256_broadcastsi128_si256(v); }
  [[gnu::always_inline]] static Vector aes(Vector v, Vector key) noexcept {
    return _mm256_aesenc_epi128(v, key);
  }
  [[gnu::always_inline]] static Vector aes_last(Vector v, Vector key) noexcept {
    return _mm256_aesenclast_epi128(v, key);
  }
  template <int kHalves>
  [[gnu::always_inline]] static Vector clmul(Vector a, Vector b) noexcept {
    return _mm256_clmulepi64_epi128(a, b, kHalves);
  }
  [[gnu::always_inline]] static Vector reversed(Vector v) noexcept {
    return _mm256_shuffle_epi8(v, spread(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
  }
  [[gnu::always_inline]] static Vector counters(Block counter, uint32_t first) noexcept {
    const Block swap = _mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const auto at = static_cast<int>(first);
    const Vector numbers = _mm256_set_epi32(at + 1, 0, 0, 0, at, 0, 0, 0);
    return _mm256_shuffle_epi8(_mm256_add_epi32(spread(_mm_shuffle_epi8(counter, swap)), numbers),
                               spread(swap));
  }
  [[gnu::always_inline]] static Vector in_first_lane(Block v) noexcept {
    return _mm256_inserti128_si256(_mm256_setzero_si256(), v, 0);
  }
  [[gnu::always_inline]] static Block fold(Vector v) noexcept {
    return _mm_xor_si128(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  }
};

using Loop = GcmLoop<Ops>;

}  // namespace

const GcmKernels kVaes256GcmKernels{"vaes256",
                                    Loop::expand,
                                    Loop::begin,
                                    Loop::decrypt,
                                    Loop::decrypt_streaming,
                                    Loop::encrypt,
                                    Loop::tag<GcmDirection::decrypt>,
                                    Loop::tag<GcmDirection::encrypt>};

}  // namespace migrx

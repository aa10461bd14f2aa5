// Four blocks per vector, eight vectors in flight: AVX-512 with VAES and VPCLMULQDQ (Ice Lake, Zen 4).
#include "loader/tls/kernels/gcm_loop.h"

namespace migrx {
namespace {

struct Ops {
  using Vector = __m512i;
  static constexpr std::size_t kWidth = 4;
  static constexpr std::size_t kVectors = 8;
  [[gnu::always_inline]] static Vector load(const void* p) noexcept { return _mm512_loadu_si512(p); }
  [[gnu::always_inline]] static void store(void* p, Vector v) noexcept { _mm512_storeu_si512(p, v); }
  [[gnu::always_inline]] static void stream(void* p, Vector v) noexcept {
    _mm512_stream_si512(static_cast<Vector*>(p), v);
  }
  [[gnu::always_inline]] static Vector exclusive_or(Vector a, Vector b) noexcept {
    return _mm512_xor_si512(a, b);
  }
  [[gnu::always_inline]] static Vector spread(Block v) noexcept { return _mm512_broadcast_i32x4(v); }
  [[gnu::always_inline]] static Vector aes(Vector v, Vector key) noexcept {
    return _mm512_aesenc_epi128(v, key);
  }
  [[gnu::always_inline]] static Vector aes_last(Vector v, Vector key) noexcept {
    return _mm512_aesenclast_epi128(v, key);
  }
  template <int kHalves>
  [[gnu::always_inline]] static Vector clmul(Vector a, Vector b) noexcept {
    return _mm512_clmulepi64_epi128(a, b, kHalves);
  }
  [[gnu::always_inline]] static Vector reversed(Vector v) noexcept {
    return _mm512_shuffle_epi8(v, spread(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
  }
  [[gnu::always_inline]] static Vector counters(Block counter, uint32_t first) noexcept {
    const Block swap = _mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const auto at = static_cast<int>(first);
    const Vector numbers = _mm512_set_epi32(at + 3, 0, 0, 0, at + 2, 0, 0, 0, at + 1, 0, 0, 0, at, 0, 0, 0);
    return _mm512_shuffle_epi8(_mm512_add_epi32(spread(_mm_shuffle_epi8(counter, swap)), numbers),
                               spread(swap));
  }
  [[gnu::always_inline]] static Vector in_first_lane(Block v) noexcept {
    return _mm512_inserti32x4(_mm512_setzero_si512(), v, 0);
  }
  [[gnu::always_inline]] static Block fold(Vector v) noexcept {
    const __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  }
};

using Loop = GcmLoop<Ops>;

}  // namespace

const GcmKernels kVaes512GcmKernels{"vaes512",
                                    Loop::expand,
                                    Loop::begin,
                                    Loop::decrypt,
                                    Loop::decrypt_streaming,
                                    Loop::encrypt,
                                    Loop::tag<GcmDirection::decrypt>,
                                    Loop::tag<GcmDirection::encrypt>};

}  // namespace migrx

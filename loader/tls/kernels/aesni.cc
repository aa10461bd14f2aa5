// One block per vector, eight of them in flight: every x86-64 CPU since 2010.
#include "loader/tls/kernels/gcm_loop.h"

namespace migrx {
namespace {

struct Ops {
  using Vector = __m128i;
  static constexpr std::size_t kWidth = 1;
  static constexpr std::size_t kVectors = 8;
  [[gnu::always_inline]] static Vector load(const void* p) noexcept { return load_block(p); }
  [[gnu::always_inline]] static void store(void* p, Vector v) noexcept { store_block(p, v); }
  [[gnu::always_inline]] static void stream(void* p, Vector v) noexcept {
    _mm_stream_si128(static_cast<Block*>(p), v);
  }
  [[gnu::always_inline]] static Vector exclusive_or(Vector a, Vector b) noexcept {
    return _mm_xor_si128(a, b);
  }
  [[gnu::always_inline]] static Vector spread(Block v) noexcept { return v; }
  [[gnu::always_inline]] static Vector aes(Vector v, Vector key) noexcept { return _mm_aesenc_si128(v, key); }
  [[gnu::always_inline]] static Vector aes_last(Vector v, Vector key) noexcept {
    return _mm_aesenclast_si128(v, key);
  }
  template <int kHalves>
  [[gnu::always_inline]] static Vector clmul(Vector a, Vector b) noexcept {
    return _mm_clmulepi64_si128(a, b, kHalves);
  }
  [[gnu::always_inline]] static Vector reversed(Vector v) noexcept { return reverse_block(v); }
  [[gnu::always_inline]] static Vector counters(Block counter, uint32_t first) noexcept {
    return advance_counter(counter, first);
  }
  [[gnu::always_inline]] static Vector in_first_lane(Block v) noexcept { return v; }
  [[gnu::always_inline]] static Block fold(Vector v) noexcept { return v; }
};

using Loop = GcmLoop<Ops>;

}  // namespace

const GcmKernels kAesniGcmKernels{"aesni",
                                  Loop::expand,
                                  Loop::begin,
                                  Loop::decrypt,
                                  Loop::decrypt_streaming,
                                  Loop::encrypt,
                                  Loop::tag<GcmDirection::decrypt>,
                                  Loop::tag<GcmDirection::encrypt>};

}  // namespace migrx

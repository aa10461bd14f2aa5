// One 64-byte non-temporal store per line. Masked byte loads (AVX-512BW) join the staging line without a
// loop: lanes that are masked off are not accessed, so the load may begin before or reach beyond the source.
#include <immintrin.h>

#include "loader/ram/kernels/kernel_tables.h"
#include "loader/ram/kernels/line_writer.h"

namespace migrx {
namespace {

[[gnu::always_inline]] inline __m512i load(const std::byte* p) noexcept {
  return _mm512_loadu_si512(p);
}
[[gnu::always_inline]] inline void stream(std::byte* p, __m512i v) noexcept {
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), v);
}
// Bits first..first+n-1; n < 64.
[[gnu::always_inline]] inline __mmask64 lanes(std::size_t first, std::size_t n) noexcept {
  return ((uint64_t{1} << n) - 1) << first;
}

struct Ops {
  [[gnu::always_inline]] static void copy_lines(std::byte* dst, const std::byte* src,
                                                std::size_t lines) noexcept {
    for (; lines >= 4; lines -= 4, dst += 4 * kLineBytes, src += 4 * kLineBytes) {
      const __m512i a = load(src), b = load(src + 64), c = load(src + 128), d = load(src + 192);
      stream(dst, a);
      stream(dst + 64, b);
      stream(dst + 128, c);
      stream(dst + 192, d);
    }
    for (; lines > 0; --lines, dst += kLineBytes, src += kLineBytes) stream(dst, load(src));
  }
  [[gnu::always_inline]] static void append(std::byte* line, std::size_t fill, const std::byte* src,
                                            std::size_t n) noexcept {
    const std::byte* const aligned = reinterpret_cast<const std::byte*>(reinterpret_cast<uintptr_t>(src) -
                                                                        fill);  // may lie before the source
    const __m512i joined = _mm512_mask_loadu_epi8(_mm512_load_si512(line), lanes(fill, n), aligned);
    _mm512_store_si512(line, joined);
  }
  [[gnu::always_inline]] static void store_line(std::byte* dst, const std::byte* line) noexcept {
    stream(dst, _mm512_load_si512(line));
  }
};

void write(LineWriter& writer, const std::byte* src, std::size_t n) noexcept {
  write_joining_lines<Ops>(writer, src, n);
}

void clear(std::byte* dst, std::size_t n) noexcept {
  const __m512i zero = _mm512_setzero_si512();
  for (std::byte* const end = dst + n; dst != end; dst += kLineBytes) stream(dst, zero);
}

bool is_zero(const std::byte* p, std::size_t n) noexcept {
  for (const std::byte* const end = p + n; p != end; p += kLineBytes) {
    const __m512i v = load(p);
    if (_mm512_test_epi8_mask(v, v) != 0) return false;
  }
  return true;
}

void fence() noexcept {
  _mm_sfence();
}

}  // namespace

const PageKernels kAvx512PageKernels{"avx512", write, clear, is_zero, fence};

}  // namespace migrx

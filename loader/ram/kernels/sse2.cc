// 16-byte non-temporal stores, four to a line: every x86-64 CPU.
#include <emmintrin.h>

#include "loader/ram/kernels/kernel_tables.h"
#include "loader/ram/kernels/line_writer.h"

namespace migrx {
namespace {

[[gnu::always_inline]] inline __m128i load(const std::byte* p) noexcept {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
[[gnu::always_inline]] inline void stream(std::byte* p, __m128i v) noexcept {
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), v);
}

struct Ops {
  [[gnu::always_inline]] static void copy_lines(std::byte* dst, const std::byte* src,
                                                std::size_t lines) noexcept {
    for (; lines > 0; --lines, dst += kLineBytes, src += kLineBytes) {
      const __m128i a = load(src), b = load(src + 16), c = load(src + 32), d = load(src + 48);
      stream(dst, a);
      stream(dst + 16, b);
      stream(dst + 32, c);
      stream(dst + 48, d);
    }
  }
  [[gnu::always_inline]] static void append(std::byte* line, std::size_t fill, const std::byte* src,
                                            std::size_t n) noexcept {
    __builtin_memcpy(line + fill, src, n);
  }
  [[gnu::always_inline]] static void store_line(std::byte* dst, const std::byte* line) noexcept {
    copy_lines(dst, line, 1);
  }
};

void write(LineWriter& writer, const std::byte* src, std::size_t n) noexcept {
  write_joining_lines<Ops>(writer, src, n);
}

void clear(std::byte* dst, std::size_t n) noexcept {
  const __m128i zero = _mm_setzero_si128();
  for (std::byte* const end = dst + n; dst != end; dst += 16) stream(dst, zero);
}

bool is_zero(const std::byte* p, std::size_t n) noexcept {
  for (const std::byte* const end = p + n; p != end; p += kLineBytes) {
    const __m128i any =
        _mm_or_si128(_mm_or_si128(load(p), load(p + 16)), _mm_or_si128(load(p + 32), load(p + 48)));
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) != 0xffff) return false;
  }
  return true;
}

void fence() noexcept {
  _mm_sfence();
}

}  // namespace

const PageKernels kSse2PageKernels{"sse2", write, clear, is_zero, fence};

}  // namespace migrx

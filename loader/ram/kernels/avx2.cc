// 32-byte non-temporal stores, two to a line.
#include <immintrin.h>

#include "loader/ram/kernels/kernel_tables.h"
#include "loader/ram/kernels/line_writer.h"

namespace migrx {
namespace {

[[gnu::always_inline]] inline __m256i load(const std::byte* p) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
[[gnu::always_inline]] inline void stream(std::byte* p, __m256i v) noexcept {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), v);
}

struct Ops {
  [[gnu::always_inline]] static void copy_lines(std::byte* dst, const std::byte* src,
                                                std::size_t lines) noexcept {
    for (; lines >= 2; lines -= 2, dst += 2 * kLineBytes, src += 2 * kLineBytes) {
      const __m256i a = load(src), b = load(src + 32), c = load(src + 64), d = load(src + 96);
      stream(dst, a);
      stream(dst + 32, b);
      stream(dst + 64, c);
      stream(dst + 96, d);
    }
    if (lines > 0) store_line(dst, src);
  }
  [[gnu::always_inline]] static void append(std::byte* line, std::size_t fill, const std::byte* src,
                                            std::size_t n) noexcept {
    __builtin_memcpy(line + fill, src, n);
  }
  [[gnu::always_inline]] static void store_line(std::byte* dst, const std::byte* line) noexcept {
    const __m256i a = load(line), b = load(line + 32);
    stream(dst, a);
    stream(dst + 32, b);
  }
};

void write(LineWriter& writer, const std::byte* src, std::size_t n) noexcept {
  write_joining_lines<Ops>(writer, src, n);
}

void clear(std::byte* dst, std::size_t n) noexcept {
  const __m256i zero = _mm256_setzero_si256();
  for (std::byte* const end = dst + n; dst != end; dst += 32) stream(dst, zero);
}

bool is_zero(const std::byte* p, std::size_t n) noexcept {
  for (const std::byte* const end = p + n; p != end; p += kLineBytes) {
    const __m256i any = _mm256_or_si256(load(p), load(p + 32));
    if (_mm256_testz_si256(any, any) == 0) return false;
  }
  return true;
}

void fence() noexcept {
  _mm_sfence();
}

}  // namespace

const PageKernels kAvx2PageKernels{"avx2", write, clear, is_zero, fence};

}  // namespace migrx

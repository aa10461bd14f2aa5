// The line-joining loop, written once against a thin vocabulary that each instruction set's file fills in:
//
//   Ops::copy_lines(dst, src, lines)   dst aligned, src not: full-line stores, past the caches if possible
//   Ops::append(line, fill, src, n)    n < 64 bytes from src to line[fill...]; fill + n <= 64
//   Ops::store_line(dst, line)         one aligned full-line store
//
// Ops must have internal linkage (an unnamed namespace), so that no code compiled for a newer CPU is merged
// into programs running on an older one. For the same reason nothing of the standard library is used here.
#pragma once

#include "loader/ram/kernels/page_kernels.h"

namespace migrx {

template <class Ops>
[[gnu::always_inline]] inline void write_joining_lines(LineWriter& writer, const std::byte* src,
                                                       std::size_t n) noexcept {
  std::byte* dst = writer.dst;
  if (writer.fill != 0) {
    const std::size_t missing = kLineBytes - writer.fill;
    if (n < missing) {
      Ops::append(writer.line, writer.fill, src, n);
      writer.fill += n;
      return;
    }
    Ops::append(writer.line, writer.fill, src, missing);
    Ops::store_line(dst, writer.line);
    dst += kLineBytes;
    src += missing;
    n -= missing;
  }
  const std::size_t lines = n / kLineBytes;
  Ops::copy_lines(dst, src, lines);
  dst += lines * kLineBytes;
  src += lines * kLineBytes;
  n -= lines * kLineBytes;
  Ops::append(writer.line, 0, src, n);
  writer.dst = dst;
  writer.fill = n;
}

}  // namespace migrx

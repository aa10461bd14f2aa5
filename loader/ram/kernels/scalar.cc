// The reference: what the other kernels must do, in the plainest way. Ordinary stores.
#include <cstring>

#include "loader/ram/kernels/kernel_tables.h"

namespace migrx {
namespace {

void write(LineWriter& writer, const std::byte* src, std::size_t n) noexcept {
  while (n > 0) {
    const std::size_t room = kLineBytes - writer.fill;
    const std::size_t part = n < room ? n : room;
    std::memcpy(writer.line + writer.fill, src, part);
    writer.fill += part;
    src += part;
    n -= part;
    if (writer.fill == kLineBytes) {
      std::memcpy(writer.dst, writer.line, kLineBytes);
      writer.dst += kLineBytes;
      writer.fill = 0;
    }
  }
}

void clear(std::byte* dst, std::size_t n) noexcept {
  std::memset(dst, 0, n);
}

bool is_zero(const std::byte* p, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i)
    if (p[i] != std::byte{0}) return false;
  return true;
}

// Ordinary stores: the release store that follows orders them.
void fence() noexcept {}

}  // namespace

const PageKernels kScalarPageKernels{"scalar", write, clear, is_zero, fence};

}  // namespace migrx

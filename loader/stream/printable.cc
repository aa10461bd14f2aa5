#include "loader/stream/printable.h"

#include <cstdint>

namespace migrx {
namespace {

// Length of the well-formed UTF-8 sequence at `p` (RFC 3629), at most `left` bytes, and its code point;
// 0: there is none.
std::size_t decode(const unsigned char* p, std::size_t left, uint32_t& code) noexcept {
  if (p[0] < 0x80) {
    code = p[0];
    return 1;
  }
  const std::size_t length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
  if (p[0] < 0xc2 || p[0] > 0xf4 || left < length) return 0;
  code = p[0] & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((p[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (p[i] & 0x3fU);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return code < kSmallest[length] || code > 0x10ffff || surrogate ? 0 : length;
}

bool harmless(uint32_t code, bool lines) noexcept {
  if (code == '\n') return lines;
  if (code < 0x20 || (code >= 0x7f && code < 0xa0)) return false;
  // Marks and overrides of direction, isolates, line separators, zero-width characters, the byte order mark.
  return !(code >= 0x200b && code <= 0x200f) && !(code >= 0x2028 && code <= 0x202e) &&
         !(code >= 0x2060 && code <= 0x206f) && code != 0xfeff && code != 0x061c;
}

}  // namespace

void make_printable(char* text, std::size_t length, bool lines) noexcept {
  for (std::size_t at = 0; at < length;) {
    uint32_t code = 0;
    const std::size_t bytes = decode(reinterpret_cast<const unsigned char*>(text) + at, length - at, code);
    if (bytes > 0 && harmless(code, lines)) {
      at += bytes;
      continue;
    }
    for (std::size_t end = at + (bytes > 0 ? bytes : 1); at < end; ++at) text[at] = '?';
  }
}

}  // namespace migrx

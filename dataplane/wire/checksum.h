// The Internet checksum (RFC 1071) over bytes that lie in several pieces.
#pragma once

#include <cstdint>
#include <span>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

// Collects pieces of any length, odd ones included, in the order in which they lie on the wire.
class ChecksumSum {
 public:
  void add(Bytes piece) noexcept;
  void add_be16(uint16_t v) noexcept { add_aligned(__builtin_bswap16(v)); }
  void add_be32(uint32_t v) noexcept {
    add_be16(static_cast<uint16_t>(v >> 16));
    add_be16(static_cast<uint16_t>(v));
  }
  // The folded sum in memory byte order. Over a message with its correct checksum in place this is 0xffff.
  [[nodiscard]] uint16_t folded() const noexcept;
  // What belongs into the checksum field, in host byte order: store it with store_be16().
  [[nodiscard]] uint16_t checksum() const noexcept {
    return __builtin_bswap16(static_cast<uint16_t>(~folded()));
  }

 private:
  void add_aligned(uint64_t v) noexcept {
    sum_ += v;
    if (sum_ < v) ++sum_;
  }
  uint64_t sum_ = 0;
  bool odd_ =
      false;  // an odd number of bytes has been added: the next piece starts in the other half of a word
};

// The sum of one piece as little-endian 16-bit words, not folded below 64 bits; chosen by CPU at start.
[[nodiscard]] uint64_t checksum_partial(Bytes piece) noexcept;
// The forms it chooses from, for tests and benches. The AVX2 form needs a CPU that has it.
[[nodiscard]] uint64_t checksum_partial_u64(Bytes piece) noexcept;
#if defined(__x86_64__)
[[nodiscard]] uint64_t checksum_partial_avx2(Bytes piece) noexcept;
#endif

}  // namespace migrx

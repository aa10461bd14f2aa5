// Compressed multifd payloads as a QEMU source makes them, for benchmarks.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "bench/micro.h"
#include "loader/multifd/decoder.h"
#include "tests/loader/multifd_stream_builder.h"

namespace migrx::bench {

// Pages such as guests have: words of a small vocabulary; records of counters, pointers and flags; a few
// bytes in zeros; and what does not compress.
enum class Content { text, binary, sparse, random };
inline constexpr std::array<std::pair<const char*, Content>, 4> kContents{{{"text", Content::text},
                                                                           {"binary", Content::binary},
                                                                           {"sparse", Content::sparse},
                                                                           {"random", Content::random}}};

inline constexpr std::size_t kPackets = 16;
inline constexpr std::size_t kPacketBytes = std::size_t{kMultifdPagesMax} * kPageBytes;

// The payloads of one channel's packets, whose pages lie side by side.
struct PayloadStream {
  PayloadStream(Content content, test::MultifdMethod method);
  Region pages;  // what they decode to
  std::vector<std::vector<std::byte>> payloads;
  std::size_t bytes = 0;  // of all payloads
};

}  // namespace migrx::bench

// Compresses the payload of multifd packets as a QEMU source does: one endless stream per channel, flushed at
// the end of each packet (QEMU migration/multifd-zlib.c, multifd-zstd.c).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "loader/generate/guest_image.h"

namespace migrx {

enum class MultifdMethod : uint8_t { none, zlib, zstd };
[[nodiscard]] std::optional<MultifdMethod> parse_multifd_method(std::string_view name) noexcept;
// MULTIFD_FLAG_* of QEMU migration/multifd.h, as the packets of that method bear it.
[[nodiscard]] uint32_t method_flag(MultifdMethod method) noexcept;

class PayloadEncoder {
 public:
  virtual ~PayloadEncoder() = default;
  // The payload of one packet with these pages, none of them left out; at least one. Throws
  // std::runtime_error when the library fails.
  [[nodiscard]] virtual std::vector<std::byte> encode(const GuestImage& image,
                                                      const std::vector<PageVersion>& pages) = 0;
};

// nullptr for `none`: those pages are sent as they are.
[[nodiscard]] std::unique_ptr<PayloadEncoder> make_payload_encoder(MultifdMethod method, int level);

}  // namespace migrx

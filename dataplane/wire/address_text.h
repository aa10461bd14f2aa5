// Addresses as people write them. Allocates nothing.
#pragma once

#include <array>
#include <string_view>

#include "dataplane/wire/address.h"

namespace migrx {

// "10.77.0.2"; "fd00::2" (RFC 5952).
class IpAddressText {
 public:
  explicit IpAddressText(const IpAddress& address) noexcept;
  [[nodiscard]] const char* c_str() const noexcept { return text_.data(); }
  [[nodiscard]] std::string_view view() const noexcept { return text_.data(); }

 private:
  std::array<char, 46> text_{};
};

// The reverse, and nothing else: no prefix length, no zone, no name. False: neither family's.
[[nodiscard]] bool parse_ip_address(const char* text, IpAddress& out) noexcept;

}  // namespace migrx

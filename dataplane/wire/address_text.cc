#include "dataplane/wire/address_text.h"

#include <arpa/inet.h>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/ipv6.h"

namespace migrx {

IpAddressText::IpAddressText(const IpAddress& address) noexcept {
  std::array<std::byte, 16> bytes;
  store_ipv6(bytes.data(), address);
  const bool ipv4 = address.is_ipv4();
  static_cast<void>(inet_ntop(ipv4 ? AF_INET : AF_INET6, bytes.data() + (ipv4 ? 12 : 0), text_.data(),
                              static_cast<socklen_t>(text_.size())));
}

bool parse_ip_address(const char* text, IpAddress& out) noexcept {
  std::array<std::byte, 16> bytes{};
  if (inet_pton(AF_INET, text, bytes.data()) == 1) {
    out = Ipv4Address{load_be32(bytes.data())};
    return true;
  }
  if (inet_pton(AF_INET6, text, bytes.data()) != 1) return false;
  load_ipv6(bytes.data(), out);
  // Its text would name the other family: an operator who means IPv4 is to write it so.
  return !out.is_ipv4();
}

}  // namespace migrx

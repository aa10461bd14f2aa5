#include "loader/app/lost_connection.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <string_view>

namespace migrx {
namespace {

constexpr std::size_t kIpv6Digits = 32;

uint64_t number_of(const EthernetAddress& mac) {
  uint64_t number = 0;
  for (const std::byte b : mac.bytes) number = number << 8 | std::to_integer<uint64_t>(b);
  return number;
}

EthernetAddress mac_of(uint64_t number) {
  EthernetAddress mac;
  for (std::size_t i = mac.bytes.size(); i-- > 0; number >>= 8)
    mac.bytes[i] = static_cast<std::byte>(number & 0xff);
  return mac;
}

// IPv4: at most 8 digits, as all receivers before wrote them; IPv6: 32.
std::string text_of(const IpAddress& ip) {
  return ip.is_ipv4() ? fmt::format("{:x}", ip.ipv4().value) : fmt::format("{:016x}{:016x}", ip.high, ip.low);
}

template <class Number>
bool from_hex(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, 16);
  return error == std::errc{} && end == text.data() + text.size();
}

bool from_hex(std::string_view text, IpAddress& out) {
  if (text.size() != kIpv6Digits) {
    Ipv4Address ipv4;
    if (!from_hex(text, ipv4.value)) return false;
    out = ipv4;
    return true;
  }
  return from_hex(text.substr(0, kIpv6Digits / 2), out.high) &&
         from_hex(text.substr(kIpv6Digits / 2), out.low) && !out.is_ipv4();
}

}  // namespace

std::string to_text(const LostConnection& c) {
  return fmt::format("{} {:x} {} {:x} {:x} {:x} {:x} {:x} {}", text_of(c.tuple.remote_ip),
                     c.tuple.remote_port, text_of(c.tuple.local_ip), c.tuple.local_port,
                     number_of(c.link.remote_mac), number_of(c.link.local_mac), c.link.vlan_tci,
                     c.link.tagged, text_of(c.next_hop));
}

std::optional<LostConnection> lost_connection_from(const std::string& text) {
  std::array<std::string_view, 9> words;
  std::string_view left = text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::size_t space = left.find(' ');
    if ((space == std::string_view::npos) != (i + 1 == words.size())) return std::nullopt;
    words[i] = left.substr(0, space);
    left.remove_prefix(space == std::string_view::npos ? left.size() : space + 1);
  }
  LostConnection c;
  uint64_t remote_mac = 0;
  uint64_t local_mac = 0;
  if (!from_hex(words[0], c.tuple.remote_ip) || !from_hex(words[1], c.tuple.remote_port) ||
      !from_hex(words[2], c.tuple.local_ip) || !from_hex(words[3], c.tuple.local_port) ||
      !from_hex(words[4], remote_mac) || !from_hex(words[5], local_mac) ||
      !from_hex(words[6], c.link.vlan_tci) || !from_hex(words[7], c.link.tagged) ||
      !from_hex(words[8], c.next_hop))
    return std::nullopt;
  // What is built for them has one family only.
  if (c.tuple.local_ip.is_ipv4() != c.tuple.is_ipv4() || c.next_hop.is_ipv4() != c.tuple.is_ipv4())
    return std::nullopt;
  c.link.remote_mac = mac_of(remote_mac);
  c.link.local_mac = mac_of(local_mac);
  return c;
}

}  // namespace migrx

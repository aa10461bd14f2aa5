#include "loader/app/lost_connection.h"

#include <fmt/format.h>

#include <array>
#include <cinttypes>
#include <cstdio>

namespace migrx {
namespace {

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

}  // namespace

std::string to_text(const LostConnection& c) {
  return fmt::format("{:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x}", c.tuple.remote_ip.value,
                     c.tuple.remote_port, c.tuple.local_ip.value, c.tuple.local_port,
                     number_of(c.link.remote_mac), number_of(c.link.local_mac), c.link.vlan_tci,
                     c.link.tagged, c.next_hop.value);
}

std::optional<LostConnection> lost_connection_from(const std::string& text) {
  LostConnection c;
  uint64_t remote_mac = 0;
  uint64_t local_mac = 0;
  if (std::sscanf(text.c_str(),
                  "%" SCNx32 " %" SCNx16 " %" SCNx32 " %" SCNx16 " %" SCNx64 " %" SCNx64 " %" SCNx16
                  " %" SCNx16 " %" SCNx32,
                  &c.tuple.remote_ip.value, &c.tuple.remote_port, &c.tuple.local_ip.value,
                  &c.tuple.local_port, &remote_mac, &local_mac, &c.link.vlan_tci, &c.link.tagged,
                  &c.next_hop.value) != 9)
    return std::nullopt;
  c.link.remote_mac = mac_of(remote_mac);
  c.link.local_mac = mac_of(local_mac);
  return c;
}

}  // namespace migrx

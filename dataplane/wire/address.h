// Addresses as the dataplane keeps them: numbers in host byte order, so that printing and prefixes are plain
// arithmetic. Conversion happens once, in parsing and building.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace migrx {

struct EthernetAddress {
  std::array<std::byte, 6> bytes{};
  friend bool operator==(const EthernetAddress&, const EthernetAddress&) = default;
};
inline constexpr EthernetAddress kEthernetBroadcast{
    {std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{0xff}}};

// The one place that would change for IPv6.
struct Ipv4Address {
  uint32_t value = 0;  // 10.0.0.1 is 0x0a000001
  friend bool operator==(Ipv4Address, Ipv4Address) = default;
};

// 10.77.0.0/24 and the like. prefix_length 0 holds every address.
struct Ipv4Network {
  Ipv4Address address;
  uint8_t prefix_length = 32;

  [[nodiscard]] constexpr bool contains(Ipv4Address a) const noexcept {
    const uint32_t mask = prefix_length == 0 ? 0 : ~uint32_t{0} << (32U - prefix_length);
    return ((a.value ^ address.value) & mask) == 0;
  }
};

// One connection as seen from here: `remote` sent the segment that was parsed, and receives what is built.
struct FourTuple {
  Ipv4Address remote_ip;
  Ipv4Address local_ip;
  uint16_t remote_port = 0;
  uint16_t local_port = 0;
  friend bool operator==(const FourTuple&, const FourTuple&) = default;
};
static_assert(sizeof(FourTuple) == 12);

// Where the frame came from on the link, which is where the answer goes: no neighbour table on the data path.
struct FrameAddress {
  EthernetAddress remote_mac;
  EthernetAddress local_mac;
  uint16_t vlan_tci = 0;  // tag control information, meaningful when tagged
  uint16_t tagged = 0;    // 1: the frame bore an IEEE 802.1Q tag
  friend bool operator==(const FrameAddress&, const FrameAddress&) = default;
};
static_assert(sizeof(FrameAddress) == 16);

}  // namespace migrx

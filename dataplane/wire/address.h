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

struct Ipv4Address {
  uint32_t value = 0;  // 10.0.0.1 is 0x0a000001
  friend bool operator==(Ipv4Address, Ipv4Address) = default;
};

// An address of either family. IPv4 ones are kept in their IPv4-mapped form (RFC 4291 section 2.5.5.2), which
// no packet may bear (plausible_source() of ipv6.h): one family is never taken for the other. A fresh one is
// `::`, nobody.
struct IpAddress {
  uint64_t high = 0;  // fd00::2 is 0xfd00'0000'0000'0000, 2
  uint64_t low = 0;

  constexpr IpAddress() noexcept = default;
  constexpr IpAddress(Ipv4Address a) noexcept : low(kMapped << 32 | a.value) {}  // NOLINT: every one is one
  constexpr IpAddress(uint64_t high_half, uint64_t low_half) noexcept : high(high_half), low(low_half) {}

  [[nodiscard]] constexpr bool is_ipv4() const noexcept { return high == 0 && low >> 32 == kMapped; }
  // Precondition: is_ipv4().
  [[nodiscard]] constexpr Ipv4Address ipv4() const noexcept { return {static_cast<uint32_t>(low)}; }
  [[nodiscard]] constexpr bool is_unspecified() const noexcept { return (high | low) == 0; }
  // IPv6 alone: ff00::/8, fe80::/10.
  [[nodiscard]] constexpr bool is_multicast() const noexcept { return high >> 56 == 0xff; }
  [[nodiscard]] constexpr bool is_link_local() const noexcept { return high >> 54 == 0xfe80 >> 6; }
  // 127.0.0.0/8, ::1.
  [[nodiscard]] constexpr bool is_loopback() const noexcept {
    return is_ipv4() ? ipv4().value >> 24 == 127 : high == 0 && low == 1;
  }
  friend constexpr bool operator==(const IpAddress&, const IpAddress&) = default;

 private:
  static constexpr uint64_t kMapped = 0xffff;
};
static_assert(sizeof(IpAddress) == 16);

// 10.77.0.0/24, fd00::/64 and the like. prefix_length 0 holds every address of the family.
struct IpNetwork {
  IpAddress address;
  uint8_t prefix_length = 0;  // at most 32 or 128

  [[nodiscard]] constexpr bool contains(const IpAddress& a) const noexcept {
    if (a.is_ipv4() != address.is_ipv4()) return false;
    const uint32_t bits = prefix_length + (address.is_ipv4() ? 96U : 0U);
    return ((a.high ^ address.high) & mask(bits)) == 0 &&
           ((a.low ^ address.low) & mask(bits > 64 ? bits - 64 : 0)) == 0;
  }

 private:
  [[nodiscard]] static constexpr uint64_t mask(uint32_t bits) noexcept {
    return bits == 0 ? 0 : bits >= 64 ? ~uint64_t{0} : ~uint64_t{0} << (64 - bits);
  }
};

// One connection as seen from here: `remote` sent the segment that was parsed, and receives what is built.
struct FourTuple {
  IpAddress remote_ip;
  IpAddress local_ip;
  uint16_t remote_port = 0;
  uint16_t local_port = 0;
  [[nodiscard]] constexpr bool is_ipv4() const noexcept { return remote_ip.is_ipv4(); }
  friend bool operator==(const FourTuple&, const FourTuple&) = default;
};

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

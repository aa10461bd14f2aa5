// Ethernet (with or without an IEEE 802.1Q tag) / IPv4 or IPv6 / TCP: parsing of what was received, building
// of what is sent. Pure: bytes in, values out. Every length is checked before it is used, and the frame's
// length is never taken for the packet's: short packets are padded to 60 bytes on Ethernet.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/address.h"
#include "dataplane/wire/counters.h"
#include "dataplane/wire/ipv6.h"
#include "dataplane/wire/seq_num.h"

namespace migrx {

// Control bits, RFC 9293 section 3.1.
namespace tcp_flag {
inline constexpr uint8_t fin = 0x01;
inline constexpr uint8_t syn = 0x02;
inline constexpr uint8_t rst = 0x04;
inline constexpr uint8_t psh = 0x08;
inline constexpr uint8_t ack = 0x10;
inline constexpr uint8_t urg = 0x20;
inline constexpr uint8_t ece = 0x40;
inline constexpr uint8_t cwr = 0x80;
}  // namespace tcp_flag

// Which options a segment bore (or shall bear).
namespace tcp_option {
inline constexpr uint8_t mss = 0x01;
inline constexpr uint8_t window_scale = 0x02;
inline constexpr uint8_t sack_permitted = 0x04;
inline constexpr uint8_t timestamps = 0x08;
}  // namespace tcp_option

// [begin, end), RFC 2018 section 3.
struct SackBlock {
  SeqNum begin;
  SeqNum end;
  friend bool operator==(const SackBlock&, const SackBlock&) = default;
};
inline constexpr uint32_t kSackBlocksMax = 4;  // 40 bytes of options; 3 beside timestamps

struct TcpSegment {
  // Read on the in-order path.
  FourTuple tuple;
  SeqNum seq;
  SeqNum ack;
  uint32_t ts_val = 0;  // meaningful with tcp_option::timestamps
  uint32_t ts_ecr = 0;
  uint32_t payload_length = 0;
  uint16_t payload_offset = 0;  // from the first byte of the frame
  uint16_t window = 0;          // as on the wire, not scaled
  uint8_t flags = 0;            // tcp_flag
  uint8_t options = 0;          // tcp_option
  uint8_t window_scale = 0;     // as on the wire; RFC 7323 section 2.3 limits what is used to 14
  uint8_t sack_count = 0;
  uint16_t mss = 0;
  uint16_t ip_offset = 0;
  uint16_t tcp_offset = 0;
  uint16_t tcp_length = 0;  // header and payload
  FrameAddress link;
  std::array<SackBlock, kSackBlocksMax> sack{};

  [[nodiscard]] bool has(uint8_t flag) const noexcept { return (flags & flag) != 0; }
  [[nodiscard]] bool has_option(uint8_t option) const noexcept { return (options & option) != 0; }
  // SEG.LEN of RFC 9293 section 3.3.1: SYN and FIN count.
  [[nodiscard]] uint32_t length() const noexcept {
    return payload_length + (has(tcp_flag::syn) ? 1U : 0U) + (has(tcp_flag::fin) ? 1U : 0U);
  }
};

// `head`: the first packet buffer of the frame, which must hold all headers. frame_length: bytes of the whole
// frame. segment_ok: `out` is filled. Any other value is the frame's fate; `arp`, `icmp` and `icmp6` ask for
// parse_arp(), IcmpEchoReply and parse_icmp6(). Malformed TCP options end the parsing of options, not of the
// segment: those before count. Neither checksum is looked at.
[[nodiscard]] WireCounter parse_segment(Bytes head, uint32_t frame_length, TcpSegment& out) noexcept;

// For ports that do not check. `head` as above. IPv6's header has none: true.
[[nodiscard]] bool ip_checksum_ok(const TcpSegment& segment, Bytes head) noexcept;
// `frame`: the packet buffers of the whole frame, in order, padding included.
[[nodiscard]] bool tcp_checksum_ok(const TcpSegment& segment, std::span<const Bytes> frame) noexcept;

// A segment to be sent. Plain data; the payload is not owned and stays valid until the machine that emitted
// the segment is called again.
struct OutSegment {
  FourTuple tuple;
  FrameAddress link;
  SeqNum seq;
  SeqNum ack;
  uint16_t window = 0;  // as on the wire, already scaled
  uint8_t flags = 0;
  uint8_t options = 0;
  uint16_t mss = 0;
  uint8_t window_scale = 0;
  uint8_t sack_count = 0;
  uint32_t ts_val = 0;
  uint32_t ts_ecr = 0;
  std::array<SackBlock, kSackBlocksMax> sack{};
  Bytes payload;
};

enum class TxChecksum : uint8_t {
  full,          // both checksums computed here
  tcp_by_port,   // IPv4's here; the TCP field holds the sum of the pseudo-header, as DPDK's offload wants it
  both_by_port,  // as above, and IPv4's field is 0; no other than tcp_by_port for IPv6
};

inline constexpr uint32_t kEthernetHeaderBytes = 14;
inline constexpr uint32_t kVlanTagBytes = 4;
inline constexpr uint32_t kIpv4HeaderBytes = 20;
inline constexpr uint32_t kTcpHeaderBytes = 20;
inline constexpr uint32_t kTcpOptionBytesMax = 40;
inline constexpr uint32_t kHeaderBytesMax =
    kEthernetHeaderBytes + kVlanTagBytes + kIpv6HeaderBytes + kTcpHeaderBytes + kTcpOptionBytesMax;

// Bytes of all headers that build_segment() will write: where the payload begins in the frame.
[[nodiscard]] uint32_t header_bytes(const OutSegment& segment) noexcept;

// Writes the frame; returns its length, not padded to Ethernet's minimum, or 0 if `out` is too small (it
// never is with kHeaderBytesMax + payload). SACK blocks that do not fit beside the other options are left
// out. The payload may already lie in its place in `out`; then it is not copied.
[[nodiscard]] uint32_t build_segment(const OutSegment& segment, MutableBytes out,
                                     TxChecksum checksum) noexcept;

}  // namespace migrx

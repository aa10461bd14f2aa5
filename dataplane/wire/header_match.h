// Header prediction over the bytes of a frame, after Van Jacobson: a bulk sender's segments differ from each
// other in a few fields only, so one masked comparison with an earlier segment's headers stands for Ethernet,
// IPv4 and TCP parsing, address checks and the flow table.
//
// The layout it knows is the one every common sender uses for data: no VLAN tag, no IPv4 options, ACK or
// ACK|PSH, and of TCP options NOP NOP Timestamps (RFC 7323 appendix A). 66 bytes, of which the last two are
// the lower half of TSecr, which in-order data does not need: one cache line is read, not two.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/segment.h"

namespace migrx {

// What an in-order segment of a known connection says.
struct TcpInOrder {
  SeqNum seq;
  SeqNum ack;
  uint32_t ts_val = 0;
  uint32_t payload_length = 0;
  uint16_t window = 0;  // as on the wire, not scaled
  bool psh = false;
};

class HeaderMatch {
 public:
  static constexpr uint32_t kHeaderBytes = 66;

  // A frame whose first kHeaderBytes are contiguous and whose parse_segment() gave `segment` has this layout.
  [[nodiscard]] static bool fits(const TcpSegment& segment, const std::byte* frame) noexcept {
    return segment.link.tagged == 0 && segment.ip_offset == kIpOffset && segment.tcp_offset == kTcpOffset &&
           segment.payload_offset == kHeaderBytes && (segment.flags & ~tcp_flag::psh) == tcp_flag::ack &&
           load_be32(frame + kTcpOffset + 20) == 0x0101'080a;
  }
  // Precondition: fits().
  void learn(const std::byte* frame) noexcept {
    for (uint32_t i = 0; i < kWords; ++i) expected_[i] = word(frame, i) & kMask[i];
  }
  // parse_segment() of this frame would be segment_ok and give the same tuple, link addresses, offsets,
  // flags (PSH aside) and options as for the frame that was learnt from; `out` holds what may differ.
  // frame_bytes: all of it, contiguous.
  [[nodiscard]] bool matches(const std::byte* frame, uint32_t frame_bytes, TcpInOrder& out) const noexcept {
    if (frame_bytes < kHeaderBytes) return false;
    uint64_t difference = 0;
    for (uint32_t i = 0; i < kWords; ++i) difference |= (word(frame, i) ^ expected_[i]) & kMask[i];
    const uint32_t total_length = load_be16(frame + kIpOffset + 2);
    if (difference != 0 || total_length < kHeaderBytes - kIpOffset || total_length > frame_bytes - kIpOffset)
        [[unlikely]]
      return false;
    out.seq = SeqNum{load_be32(frame + kTcpOffset + 4)};
    out.ack = SeqNum{load_be32(frame + kTcpOffset + 8)};
    out.ts_val = load_be32(frame + kTcpOffset + 24);
    out.payload_length = total_length - (kHeaderBytes - kIpOffset);
    out.window = load_be16(frame + kTcpOffset + 14);
    out.psh = (std::to_integer<uint8_t>(frame[kTcpOffset + 13]) & tcp_flag::psh) != 0;
    return true;
  }

 private:
  static constexpr uint32_t kIpOffset = kEthernetHeaderBytes;
  static constexpr uint32_t kTcpOffset = kIpOffset + kIpv4HeaderBytes;
  static constexpr uint32_t kWords = 8;

  [[nodiscard]] static uint64_t word(const std::byte* p, uint32_t i) noexcept {
    uint64_t v;
    std::memcpy(&v, p + 8 * std::size_t{i}, sizeof v);
    return v;
  }
  // The bits that must be the same. Free are those that parsing does not look at, and those it hands out.
  static constexpr std::array<uint64_t, kWords> kMask = [] {
    std::array<uint8_t, std::size_t{8} * kWords> mask{};
    for (uint8_t& m : mask) m = 0xff;
    const auto free = [&mask](uint32_t begin, uint32_t bytes) {
      for (uint32_t i = 0; i < bytes; ++i) mask[begin + i] = 0;
    };
    free(kIpOffset + 1, 1);        // type of service
    free(kIpOffset + 2, 2);        // total length: looked at apart
    free(kIpOffset + 4, 2);        // identification
    mask[kIpOffset + 6] = 0x3f;    // more fragments and offset must be 0; don't-fragment may be either
    free(kIpOffset + 8, 1);        // time to live
    free(kIpOffset + 10, 2);       // header checksum: the caller's
    free(kTcpOffset + 4, 8);       // SEG.SEQ, SEG.ACK
    mask[kTcpOffset + 12] = 0xf0;  // data offset; the reserved bits are nobody's
    mask[kTcpOffset + 13] = 0xff & ~tcp_flag::psh;
    free(kTcpOffset + 14, 6);  // window, checksum (the caller's), urgent pointer (URG is not set)
    free(kTcpOffset + 24, 6);  // TSval, upper half of TSecr
    return std::bit_cast<std::array<uint64_t, kWords>>(mask);
  }();

  std::array<uint64_t, kWords> expected_{};
};

}  // namespace migrx

// Header prediction over the bytes of a frame, after Van Jacobson: a bulk sender's segments differ from each
// other in a few fields only, so one masked comparison with an earlier segment's headers stands for Ethernet,
// IPv4 and TCP parsing, address checks and the flow table.
//
// The layouts it knows are those that every common sender uses for data: no VLAN tag, no IPv4 options or IPv6
// extension headers, ACK or ACK|PSH, and of TCP options NOP NOP Timestamps (RFC 7323 appendix A). With IPv4
// that is 66 bytes, of which the last two are the lower half of TSecr, which in-order data does not need: one
// cache line is read, not two. With IPv6 it is 86, two lines, of which TSecr is not read.
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

// The bits that must be the same. Free are those that parsing does not look at, and those it hands out.
template <uint32_t kCount>
class HeaderMask {
 public:
  constexpr HeaderMask() {
    for (uint8_t& m : mask) m = 0xff;
  }
  constexpr void free(uint32_t begin, uint32_t bytes) {
    for (uint32_t i = begin; i < begin + bytes && i < mask.size(); ++i) mask[i] = 0;
  }
  constexpr void free_tcp(uint32_t tcp) {
    free(tcp + 4, 8);       // SEG.SEQ, SEG.ACK
    mask[tcp + 12] = 0xf0;  // data offset; the reserved bits may differ
    mask[tcp + 13] = 0xff & ~tcp_flag::psh;
    free(tcp + 14, 6);  // window, checksum (the caller's), urgent pointer (URG is not set)
    free(tcp + 24, 8);  // TSval, TSecr
  }
  std::array<uint8_t, std::size_t{8} * kCount> mask{};
};

class HeaderMatch {
 public:
  static constexpr uint32_t kHeaderBytes = 66;
  static constexpr uint32_t kIpv6Bytes = kHeaderBytes - kIpv4HeaderBytes + kIpv6HeaderBytes;

  // A frame whose first payload_offset bytes are contiguous and whose parse_segment() gave `segment` has one
  // of these layouts.
  [[nodiscard]] static bool fits(const TcpSegment& segment, const std::byte* frame) noexcept {
    const uint32_t ip_bytes = segment.tuple.is_ipv4() ? kIpv4HeaderBytes : kIpv6HeaderBytes;
    return segment.link.tagged == 0 && segment.ip_offset == kIpOffset &&
           segment.tcp_offset == kIpOffset + ip_bytes &&
           segment.payload_offset == kIpOffset + ip_bytes + kTcpBytes &&
           (segment.flags & ~tcp_flag::psh) == tcp_flag::ack &&
           load_be32(frame + segment.tcp_offset + 20) == 0x0101'080a;
  }
  // Precondition: fits().
  void learn(const TcpSegment& segment, const std::byte* frame) noexcept {
    ipv4_ = segment.tuple.is_ipv4();
    if (ipv4_)
      for (uint32_t i = 0; i < kWords; ++i) expected_[i] = word(frame, i) & kMask[i];
    else
      for (uint32_t i = 0; i < kIpv6Words; ++i) expected_[i] = word(frame, i) & kIpv6Mask[i];
  }
  // Of the frame that was learnt from.
  [[nodiscard]] bool is_ipv4() const noexcept { return ipv4_; }
  [[nodiscard]] uint32_t header_bytes() const noexcept { return ipv4_ ? kHeaderBytes : kIpv6Bytes; }

  // parse_segment() of this frame would be segment_ok and give the same tuple, link addresses, offsets,
  // flags (PSH aside) and options as for the frame that was learnt from; `out` holds what may differ.
  // frame_bytes: all of it, contiguous.
  [[nodiscard]] bool matches(const std::byte* frame, uint32_t frame_bytes, TcpInOrder& out) const noexcept {
    if (!ipv4_) return matches_ipv6(frame, frame_bytes, out);
    if (frame_bytes < kHeaderBytes) return false;
    uint64_t difference = 0;
    for (uint32_t i = 0; i < kWords; ++i) difference |= (word(frame, i) ^ expected_[i]) & kMask[i];
    const uint32_t total_length = load_be16(frame + kIpOffset + 2);
    if (difference != 0 || total_length < kHeaderBytes - kIpOffset || total_length > frame_bytes - kIpOffset)
        [[unlikely]]
      return false;
    read_tcp(frame + kIpOffset + kIpv4HeaderBytes, out);
    out.payload_length = total_length - (kHeaderBytes - kIpOffset);
    return true;
  }

 private:
  static constexpr uint32_t kIpOffset = kEthernetHeaderBytes;
  static constexpr uint32_t kTcpBytes = kTcpHeaderBytes + 12;
  static constexpr uint32_t kWords = 8;
  static constexpr uint32_t kIpv6Words = 10;

  [[nodiscard]] bool matches_ipv6(const std::byte* frame, uint32_t frame_bytes,
                                  TcpInOrder& out) const noexcept {
    if (frame_bytes < kIpv6Bytes) return false;
    uint64_t difference = 0;
    for (uint32_t i = 0; i < kIpv6Words; ++i) difference |= (word(frame, i) ^ expected_[i]) & kIpv6Mask[i];
    const uint32_t payload = load_be16(frame + kIpOffset + 4);
    if (difference != 0 || payload < kTcpBytes || payload > frame_bytes - kIpOffset - kIpv6HeaderBytes)
        [[unlikely]]
      return false;
    read_tcp(frame + kIpOffset + kIpv6HeaderBytes, out);
    out.payload_length = payload - kTcpBytes;
    return true;
  }
  [[gnu::always_inline]] static void read_tcp(const std::byte* tcp, TcpInOrder& out) noexcept {
    out.seq = SeqNum{load_be32(tcp + 4)};
    out.ack = SeqNum{load_be32(tcp + 8)};
    out.ts_val = load_be32(tcp + 24);
    out.window = load_be16(tcp + 14);
    out.psh = (std::to_integer<uint8_t>(tcp[13]) & tcp_flag::psh) != 0;
  }
  [[nodiscard]] static uint64_t word(const std::byte* p, uint32_t i) noexcept {
    uint64_t v;
    std::memcpy(&v, p + 8 * std::size_t{i}, sizeof v);
    return v;
  }
  template <uint32_t kCount>
  using Mask = HeaderMask<kCount>;
  static constexpr std::array<uint64_t, kWords> kMask = [] {
    Mask<kWords> m;
    m.free(kIpOffset + 1, 1);      // type of service
    m.free(kIpOffset + 2, 2);      // total length: looked at apart
    m.free(kIpOffset + 4, 2);      // identification
    m.mask[kIpOffset + 6] = 0x3f;  // more fragments and offset must be 0; don't-fragment may be either
    m.free(kIpOffset + 8, 1);      // time to live
    m.free(kIpOffset + 10, 2);     // header checksum: the caller's
    m.free_tcp(kIpOffset + kIpv4HeaderBytes);
    return std::bit_cast<std::array<uint64_t, kWords>>(m.mask);
  }();
  static constexpr std::array<uint64_t, kIpv6Words> kIpv6Mask = [] {
    Mask<kIpv6Words> m;
    m.mask[kIpOffset] = 0xf0;  // the version; traffic class and flow label may differ
    m.free(kIpOffset + 1, 3);
    m.free(kIpOffset + 4, 2);  // payload length: looked at apart
    m.free(kIpOffset + 7, 1);  // hop limit
    m.free_tcp(kIpOffset + kIpv6HeaderBytes);
    return std::bit_cast<std::array<uint64_t, kIpv6Words>>(m.mask);
  }();

  std::array<uint64_t, kIpv6Words> expected_{};
  bool ipv4_ = true;
};

}  // namespace migrx

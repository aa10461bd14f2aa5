// A received frame: Ethernet, ARP, ICMP echo, IPv4, TCP and its options. Input: a byte that says how much of
// the frame lies in the first packet buffer (0: all), the frame.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "dataplane/tcp/listener.h"
#include "dataplane/wire/arp.h"
#include "dataplane/wire/icmp.h"
#include "dataplane/wire/icmp6.h"
#include "dataplane/wire/mld.h"
#include "dataplane/wire/ndp.h"
#include "dataplane/wire/segment.h"
#include "tests/fuzz/fuzz_target.h"

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::vector<std::byte>> seeds;
  const auto add = [&seeds](MutableBytes frame, uint32_t length) {
    std::vector<std::byte> seed{std::byte{0}};
    seed.insert(seed.end(), frame.begin(), frame.begin() + length);
    seeds.push_back(std::move(seed));
  };
  std::array<std::byte, 256> frame;
  OutSegment s;
  s.tuple = {Ipv4Address{0x0a4d0002}, Ipv4Address{0x0a4d0001}, 4444, 45678};
  s.flags = tcp_flag::syn;
  s.options =
      tcp_option::mss | tcp_option::window_scale | tcp_option::sack_permitted | tcp_option::timestamps;
  s.mss = 1460;
  add(frame, build_segment(s, frame, TxChecksum::full));
  s.flags = tcp_flag::ack;
  s.options = tcp_option::timestamps;
  s.sack_count = 3;
  s.link.tagged = 1;
  const std::array<std::byte, 5> payload{};
  s.payload = payload;
  add(frame, build_segment(s, frame, TxChecksum::full));
  add(frame, build_arp(arp_request_for({}, {0x0a4d0001}, {0x0a4d0002}), frame));
  const IpAddress ours{0xfd00'0000'0000'0000, 2};
  const IpAddress theirs{0xfd00'0000'0000'0000, 1};
  s.tuple = {ours, theirs, 4444, 45678};
  add(frame, build_segment(s, frame, TxChecksum::full));
  const EthernetAddress mac{{std::byte{2}}};
  add(frame, build_ndp(ndp_solicitation_for(mac, theirs, ours), frame));
  add(frame, build_ndp(ndp_solicitation_for(mac, {}, ours), frame));
  add(frame, build_ndp(ndp_announcement_of(mac, theirs), frame));
  add(frame, build_mld_report({}, {&ours, 1}, {}, frame));
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  if (size < 1) return 0;
  const std::size_t length = size - 1;
  const std::size_t head_length = data[0] == 0 ? length : std::min<std::size_t>(data[0], length);
  // A copy of its own, so that a sanitizer sees every byte read beyond it.
  const auto head = std::make_unique<std::byte[]>(head_length);
  const auto rest = std::make_unique<std::byte[]>(length - head_length);
  if (head_length > 0) std::memcpy(head.get(), data + 1, head_length);
  if (length > head_length) std::memcpy(rest.get(), data + 1 + head_length, length - head_length);
  const Bytes pieces[] = {{head.get(), head_length}, {rest.get(), length - head_length}};

  TcpSegment segment;
  if (parse_segment(pieces[0], static_cast<uint32_t>(length), segment) == WireCounter::segment_ok) {
    if (segment.payload_offset + segment.payload_length > length) std::abort();
    if (segment.payload_offset > head_length || segment.sack_count > kSackBlocksMax) std::abort();
    static_cast<void>(ip_checksum_ok(segment, pieces[0]));
    static_cast<void>(tcp_checksum_ok(segment, pieces));
    OutSegment reply;
    if (reset_for(segment, reply) == segment.has(tcp_flag::rst)) std::abort();
  }
  ArpPacket arp;
  if (parse_arp(pieces[0], arp)) {
    std::array<std::byte, kArpFrameBytesMax> out;
    const uint32_t n = build_arp(arp, out);
    ArpPacket again;
    if (!parse_arp(Bytes{out}.first(n), again) || again.sender_ip != arp.sender_ip) std::abort();
  }
  Icmp6View icmp6;
  if (parse_icmp6(pieces[0], icmp6)) {
    const IpAddress group = solicited_node(icmp6.ip.destination);
    static_cast<void>(is_mld_query(icmp6, {&group, 1}));
    NdpPacket ndp;
    if (parse_ndp(icmp6, ndp)) {
      if (icmp6.ip.hop_limit != 255 || ndp.target.is_multicast() || ndp.target.is_ipv4()) std::abort();
      std::array<std::byte, kNdpFrameBytesMax> out;
      const uint32_t n = build_ndp(ndp, out);
      Icmp6View again_view;
      NdpPacket again;
      // What it came to, it goes to again: whoever hears it must understand the same.
      if (!parse_icmp6(Bytes{out}.first(n), again_view)) std::abort();
      again_view.link = ndp.link;
      if (!parse_ndp(again_view, again) || again.target != ndp.target || again.mac != ndp.mac) std::abort();
      NdpPacket answer;
      if (ndp_reply_for(ndp, {}, ndp.target, answer) != (ndp.kind == NdpPacket::Kind::solicitation))
        std::abort();
    }
    Icmp6EchoReply echo6;
    std::array<std::byte, 2048> out;
    if (echo6.take(icmp6, icmp6.ip.destination)) {
      uint64_t bytes = 0;
      for (uint32_t n = 0; (n = echo6.next(1280, 1, out)) != 0; bytes += n)
        if (n > 14 + 4 + 1280) std::abort();
      if (bytes < icmp6.message.size()) std::abort();
    }
  }
  const auto reply = std::make_unique<std::byte[]>(length);
  IcmpEchoReply echo;
  if (echo.take(pieces[0], {0x0a4d0002})) {
    uint64_t bytes = 0;
    for (uint32_t n = 0; (n = echo.next(68, 1, {reply.get(), length})) != 0; bytes += n)
      if (n > length || n > 14 + 4 + 68) std::abort();
    if (bytes == 0 && length >= 14 + 4 + 68) std::abort();
  }
  return 0;
}

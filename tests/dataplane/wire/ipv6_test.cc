// IPv6, ICMPv6, neighbour discovery and multicast listener discovery: what is built is parsed again, and what
// a hostile host sends is refused.
#include "dataplane/wire/ipv6.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "dataplane/wire/address_text.h"
#include "dataplane/wire/ethernet.h"
#include "dataplane/wire/header_match.h"
#include "dataplane/wire/icmp6.h"
#include "dataplane/wire/mld.h"
#include "dataplane/wire/ndp.h"
#include "dataplane/wire/segment.h"

namespace migrx {
namespace {

using Packet = std::vector<std::byte>;

constexpr IpAddress kOurs6{0xfd00'0000'0000'0000, 2};
constexpr IpAddress kPeers6{0xfd00'0000'0000'0000, 1};
constexpr EthernetAddress kOurMac{
    {std::byte{2}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{2}}};
constexpr EthernetAddress kPeerMac{
    {std::byte{2}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{1}}};

IpAddress ip(const char* text) {
  IpAddress out;
  EXPECT_TRUE(parse_ip_address(text, out)) << text;
  return out;
}

// From the peer to us: `payload` behind extension headers, the first of which is of kind `next`.
Packet ipv6_packet(uint8_t next, const Packet& payload) {
  Packet p(kIpv6HeaderBytes);
  build_ipv6(kPeers6, kOurs6, next, 64, static_cast<uint32_t>(payload.size()), p.data());
  p.insert(p.end(), payload.begin(), payload.end());
  return p;
}
Packet bytes(std::initializer_list<int> values) {
  Packet p;
  for (const int v : values) p.push_back(static_cast<std::byte>(v));
  return p;
}
WireCounter fate(const Packet& p, Ipv6View& out) {
  return parse_ipv6(p, static_cast<uint32_t>(p.size()), out);
}

TEST(IpAddress, both_families_are_told_apart_and_printed) {
  EXPECT_EQ(ip("10.77.0.2"), IpAddress(Ipv4Address{0x0a4d0002}));
  EXPECT_EQ(ip("fd00::2"), kOurs6);
  EXPECT_STREQ(IpAddressText(ip("10.77.0.2")).c_str(), "10.77.0.2");
  EXPECT_STREQ(IpAddressText(ip("fd00:0:0:1::a")).c_str(), "fd00:0:0:1::a");
  IpAddress out;
  for (const char* const text :
       {"", "fd00::2%eth0", "::ffff:10.77.0.2", "fd00::2/64", "10.77.0", "host", ":::"})
    EXPECT_FALSE(parse_ip_address(text, out)) << text;
}

TEST(IpNetwork, holds_the_addresses_of_its_prefix_and_family) {
  const IpNetwork net{ip("fd00:0:0:1::2"), 64};
  EXPECT_TRUE(net.contains(ip("fd00:0:0:1:ffff:ffff:ffff:ffff")));
  EXPECT_FALSE(net.contains(ip("fd00:0:0:2::2")));
  EXPECT_FALSE(net.contains(ip("10.77.0.2")));
  const IpNetwork one{ip("fd00::2"), 127};
  EXPECT_TRUE(one.contains(ip("fd00::3")));
  EXPECT_FALSE(one.contains(ip("fd00::4")));
  const IpNetwork half{ip("fd00::"), 8};
  EXPECT_TRUE(half.contains(ip("fdff::1")));
  EXPECT_FALSE(half.contains(ip("fe00::1")));
  const IpNetwork all{ip("fd00::"), 0};
  EXPECT_TRUE(all.contains(ip("2001:db8::1")));
  EXPECT_FALSE(all.contains(ip("10.0.0.1")));
  const IpNetwork v4{ip("10.77.0.0"), 24};
  EXPECT_TRUE(v4.contains(ip("10.77.0.255")));
  EXPECT_FALSE(v4.contains(ip("10.77.1.0")));
  const IpNetwork v4_all{ip("10.77.0.0"), 0};
  EXPECT_TRUE(v4_all.contains(ip("192.0.2.1")));
  EXPECT_FALSE(v4_all.contains(kOurs6));
}

TEST(ParseIpv6, a_plain_header) {
  Ipv6View view;
  ASSERT_EQ(fate(ipv6_packet(ipv6_next::tcp, Packet(20)), view), WireCounter::segment_ok);
  EXPECT_EQ(view.source, kPeers6);
  EXPECT_EQ(view.destination, kOurs6);
  EXPECT_EQ(view.header_length, 40);
  EXPECT_EQ(view.payload_length, 20);
  EXPECT_EQ(view.protocol, ipv6_next::tcp);
}

TEST(ParseIpv6, every_shorter_packet_is_refused) {
  const Packet whole = ipv6_packet(ipv6_next::destination_options, bytes({6, 0, 1, 4, 0, 0, 0, 0}));
  Ipv6View view;
  ASSERT_EQ(fate(whole, view), WireCounter::segment_ok);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const Packet cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_NE(fate(cut, view), WireCounter::segment_ok) << n;
    // The rest in another packet buffer.
    EXPECT_EQ(parse_ipv6(cut, static_cast<uint32_t>(whole.size()), view), WireCounter::frame_headers_split)
        << n;
  }
}

TEST(ParseIpv6, extension_headers_are_walked_through_and_the_others_refused) {
  struct Case {
    const char* what;
    uint8_t next;
    Packet payload;
    WireCounter fate;
    uint16_t header_length = 40;
  };
  const Packet padded = bytes({60, 0, 1, 4, 0, 0, 0, 0});
  Packet five;
  for (int i = 0; i < 5; ++i) five.insert(five.end(), padded.begin(), padded.end());
  Packet long_options = bytes({6, 17, 1, 140});
  long_options.resize(144 + 20);
  const Case cases[] = {
      {"hop-by-hop", ipv6_next::hop_by_hop, bytes({6, 0, 1, 4, 0, 0, 0, 0}), WireCounter::segment_ok, 48},
      {"router alert", ipv6_next::hop_by_hop, bytes({6, 0, 5, 2, 0, 0, 1, 0}), WireCounter::segment_ok, 48},
      {"unknown option to be skipped", ipv6_next::destination_options, bytes({6, 0, 0x1e, 4, 0, 0, 0, 0}),
       WireCounter::segment_ok, 48},
      {"unknown option to be understood", ipv6_next::destination_options, bytes({6, 0, 0x9e, 4, 0, 0, 0, 0}),
       WireCounter::ip_extension_bad},
      {"option beyond its header", ipv6_next::destination_options, bytes({6, 0, 1, 5, 0, 0, 0, 0}),
       WireCounter::ip_extension_bad},
      {"option without a length", ipv6_next::destination_options, bytes({6, 0, 1, 3, 0, 0, 0, 1}),
       WireCounter::ip_extension_bad},
      {"header beyond the packet", ipv6_next::destination_options, bytes({6, 1, 1, 4, 0, 0, 0, 0}),
       WireCounter::ip_extension_bad},
      {"half a header", ipv6_next::destination_options, bytes({6, 0, 1, 1}), WireCounter::ip_extension_bad},
      {"hop-by-hop that is not first", ipv6_next::destination_options,
       bytes({0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0}), WireCounter::ip_extension_bad},
      {"more than are walked", ipv6_next::destination_options, five, WireCounter::ip_extension_bad},
      {"longer than is walked", ipv6_next::destination_options, long_options, WireCounter::ip_extension_bad},
      {"routing header that is used up", ipv6_next::routing, bytes({6, 0, 2, 0, 0, 0, 0, 0}),
       WireCounter::segment_ok, 48},
      {"routing header with segments left", ipv6_next::routing, bytes({6, 0, 0, 1, 0, 0, 0, 0}),
       WireCounter::ip_extension_bad},
      {"atomic fragment", ipv6_next::fragment, bytes({6, 0, 0, 0, 1, 2, 3, 4}), WireCounter::segment_ok, 48},
      {"first fragment", ipv6_next::fragment, bytes({6, 0, 0, 1, 1, 2, 3, 4}), WireCounter::ip_fragment},
      {"last fragment", ipv6_next::fragment, bytes({6, 0, 0, 8, 1, 2, 3, 4}), WireCounter::ip_fragment},
      {"authentication header: somebody else's", 51, bytes({6, 4, 0, 0, 0, 0, 0, 0}),
       WireCounter::segment_ok},
  };
  for (const Case& c : cases) {
    Packet payload = c.payload;
    payload.resize(payload.size() + 0);
    Ipv6View view;
    EXPECT_EQ(fate(ipv6_packet(c.next, payload), view), c.fate) << c.what;
    if (c.fate == WireCounter::segment_ok) {
      EXPECT_EQ(view.header_length, c.header_length) << c.what;
    }
  }
}

TEST(ParseIpv6, wrong_versions_and_lengths) {
  Packet p = ipv6_packet(ipv6_next::tcp, Packet(20));
  Ipv6View view;
  p[0] = std::byte{0x45};
  EXPECT_EQ(fate(p, view), WireCounter::ip_header_bad);
  p[0] = std::byte{0x60};
  store_be16(p.data() + 4, 21);
  EXPECT_EQ(fate(p, view), WireCounter::ip_length_bad);
  store_be16(p.data() + 4, 0);  // a jumbogram would say so
  ASSERT_EQ(fate(p, view), WireCounter::segment_ok);
  EXPECT_EQ(view.payload_length, 0);
}

OutSegment segment_of(Bytes payload) {
  OutSegment out;
  out.tuple = {kPeers6, kOurs6, 4444, 45678};
  out.link.remote_mac = kPeerMac;
  out.link.local_mac = kOurMac;
  out.seq = SeqNum{0xffff'fffe};
  out.ack = SeqNum{7};
  out.window = 1000;
  out.flags = tcp_flag::ack;
  out.options = tcp_option::timestamps;
  out.ts_val = 0x0102'0304;
  out.ts_ecr = 0x0506'0708;
  out.payload = payload;
  return out;
}
Packet frame_of(const OutSegment& out, TxChecksum checksum = TxChecksum::full) {
  Packet packet(kHeaderBytesMax + out.payload.size());
  packet.resize(build_segment(out, packet, checksum));
  return packet;
}

TEST(Ipv6Segment, what_is_built_is_parsed_and_its_checksum_holds_and_is_noticed) {
  const Packet payload(100, std::byte{0x55});
  for (const uint16_t tagged : {uint16_t{0}, uint16_t{1}}) {
    OutSegment out = segment_of(payload);
    out.link.tagged = tagged;
    Packet frame = frame_of(out);
    EXPECT_EQ(frame.size(), header_bytes(out) + payload.size());
    TcpSegment in;
    ASSERT_EQ(parse_segment(frame, static_cast<uint32_t>(frame.size()), in), WireCounter::segment_ok);
    EXPECT_EQ(in.tuple, (FourTuple{kOurs6, kPeers6, 45678, 4444}));
    EXPECT_EQ(in.payload_length, 100U);
    EXPECT_EQ(in.ts_val, out.ts_val);
    const Bytes whole{frame};
    EXPECT_TRUE(ip_checksum_ok(in, whole));
    EXPECT_TRUE(tcp_checksum_ok(in, std::span{&whole, 1}));
    for (const std::size_t at :
         {std::size_t{in.ip_offset} + 8, std::size_t{in.ip_offset} + 39, frame.size() - 1}) {
      frame[at] ^= std::byte{1};
      TcpSegment damaged;
      if (parse_segment(frame, static_cast<uint32_t>(frame.size()), damaged) == WireCounter::segment_ok) {
        EXPECT_FALSE(tcp_checksum_ok(damaged, std::span{&whole, 1})) << at;
      }
      frame[at] ^= std::byte{1};
    }
  }
}

TEST(Ipv6Segment, the_offload_gets_the_sum_of_the_pseudo_header) {
  const Packet payload(9, std::byte{0x55});
  const Packet full = frame_of(segment_of(payload));
  const Packet offload = frame_of(segment_of(payload), TxChecksum::tcp_by_port);
  // What the device does: the sum over TCP with that in the field.
  ChecksumSum sum;
  sum.add(Bytes{offload}.subspan(54));
  EXPECT_EQ(sum.checksum(), load_be16(full.data() + 54 + 16));
}

TEST(Ipv6Segment, sources_and_destinations_that_are_nobodys_are_refused) {
  const Packet frame = frame_of(segment_of({}));
  const auto with = [&](std::size_t at, const char* text) {
    Packet changed = frame;
    IpAddress address;
    if (std::string_view(text) == "mapped")
      address = Ipv4Address{0x0a4d0001};
    else
      address = ip(text);
    store_ipv6(changed.data() + at, address);
    TcpSegment in;
    return parse_segment(changed, static_cast<uint32_t>(changed.size()), in);
  };
  for (const char* const text : {"::", "::1", "ff02::1", "mapped"})
    EXPECT_EQ(with(22, text), WireCounter::ip_header_bad) << text;
  EXPECT_EQ(with(38, "mapped"), WireCounter::ip_header_bad);
  EXPECT_EQ(with(22, "fe80::1"), WireCounter::segment_ok);
}

TEST(Ipv6Segment, extension_headers_lie_before_tcp) {
  Packet frame = frame_of(segment_of({}));
  const Packet options = bytes({6, 0, 1, 4, 0, 0, 0, 0});
  frame.insert(frame.begin() + 54, options.begin(), options.end());
  frame[20] = std::byte{60};
  store_be16(frame.data() + 18, static_cast<uint16_t>(load_be16(frame.data() + 18) + 8));
  TcpSegment in;
  ASSERT_EQ(parse_segment(frame, static_cast<uint32_t>(frame.size()), in), WireCounter::segment_ok);
  EXPECT_EQ(in.tcp_offset, 62);
  const Bytes whole{frame};
  EXPECT_TRUE(tcp_checksum_ok(in, std::span{&whole, 1}));
  EXPECT_FALSE(HeaderMatch::fits(in, frame.data()));
}

// For every bit of the headers: if a frame with that bit changed still matches, parsing it says the same.
TEST(Ipv6HeaderMatch, stands_for_parsing) {
  const Packet payload(20, std::byte{0x55});
  const Packet frame = frame_of(segment_of(payload));
  TcpSegment known;
  ASSERT_EQ(parse_segment(frame, static_cast<uint32_t>(frame.size()), known), WireCounter::segment_ok);
  ASSERT_TRUE(HeaderMatch::fits(known, frame.data()));
  HeaderMatch match;
  match.learn(known, frame.data());
  EXPECT_EQ(match.header_bytes(), 86U);
  uint32_t matched = 0;
  for (std::size_t bit = 0; bit < 8 * std::size_t{86}; ++bit) {
    Packet changed = frame;
    changed[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    TcpInOrder out;
    if (!match.matches(changed.data(), static_cast<uint32_t>(changed.size()), out)) continue;
    ++matched;
    TcpSegment in;
    ASSERT_EQ(parse_segment(changed, static_cast<uint32_t>(changed.size()), in), WireCounter::segment_ok)
        << bit;
    EXPECT_EQ(in.tuple, known.tuple) << bit;
    EXPECT_EQ(in.link, known.link) << bit;
    EXPECT_EQ(in.payload_offset, 86) << bit;
    EXPECT_EQ(in.payload_length, out.payload_length) << bit;
    EXPECT_EQ(in.seq, out.seq) << bit;
    EXPECT_EQ(in.ack, out.ack) << bit;
    EXPECT_EQ(in.ts_val, out.ts_val) << bit;
    EXPECT_EQ(in.window, out.window) << bit;
    EXPECT_EQ(in.flags & ~tcp_flag::psh, tcp_flag::ack) << bit;
    EXPECT_EQ(in.has(tcp_flag::psh), out.psh) << bit;
  }
  EXPECT_GT(matched, 100U);
  TcpInOrder out;
  for (std::size_t n = 0; n < 86; ++n)
    EXPECT_FALSE(
        match.matches(Packet(frame.begin(), frame.begin() + 86).data(), static_cast<uint32_t>(n), out));
  // A frame of the other family is not taken for one.
  OutSegment v4 = segment_of(payload);
  v4.tuple = {Ipv4Address{1}, Ipv4Address{2}, 4444, 45678};
  const Packet other = frame_of(v4);
  EXPECT_FALSE(match.matches(other.data(), static_cast<uint32_t>(other.size()), out));
}

// ---- Neighbour discovery

Packet ndp_frame(const NdpPacket& packet) {
  Packet frame(kNdpFrameBytesMax);
  frame.resize(build_ndp(packet, frame));
  return frame;
}
bool heard(const Packet& frame, NdpPacket& out) {
  Icmp6View view;
  return parse_icmp6(frame, view) && parse_ndp(view, out);
}
void sign(Packet& frame) {
  store_be16(frame.data() + 54 + 2, 0);
  IpAddress source;
  IpAddress destination;
  load_ipv6(frame.data() + 22, source);
  load_ipv6(frame.data() + 38, destination);
  put_icmp6_checksum(source, destination, MutableBytes{frame}.subspan(54));
}

TEST(Ndp, a_question_is_answered_and_the_answer_understood) {
  NdpPacket question;
  ASSERT_TRUE(heard(ndp_frame(ndp_solicitation_for(kPeerMac, kPeers6, kOurs6)), question));
  EXPECT_EQ(question.destination, ip("ff02::1:ff00:2"));
  EXPECT_EQ(question.mac, kPeerMac);
  NdpPacket reply;
  EXPECT_FALSE(ndp_reply_for(question, kOurMac, kPeers6, reply));
  ASSERT_TRUE(ndp_reply_for(question, kOurMac, kOurs6, reply));
  NdpPacket answer;
  ASSERT_TRUE(heard(ndp_frame(reply), answer));
  EXPECT_EQ(answer.kind, NdpPacket::Kind::advertisement);
  EXPECT_TRUE(answer.solicited && answer.overrides && answer.has_mac);
  EXPECT_EQ(answer.mac, kOurMac);
  EXPECT_EQ(answer.target, kOurs6);
  EXPECT_EQ(answer.destination, kPeers6);
  EXPECT_FALSE(ndp_reply_for(answer, kOurMac, kOurs6, reply));
}

TEST(Ndp, who_asks_without_a_name_is_answered_at_the_group_of_all) {
  NdpPacket question;
  ASSERT_TRUE(heard(ndp_frame(ndp_solicitation_for(kPeerMac, IpAddress{}, kOurs6)), question));
  EXPECT_FALSE(question.has_mac);
  NdpPacket reply;
  ASSERT_TRUE(ndp_reply_for(question, kOurMac, kOurs6, reply));
  EXPECT_EQ(reply.destination, kAllNodes);
  EXPECT_EQ(reply.link.remote_mac, multicast_mac(kAllNodes));
  NdpPacket answer;
  ASSERT_TRUE(heard(ndp_frame(reply), answer));
  EXPECT_FALSE(answer.solicited);
}

TEST(Ndp, hostile_packets_are_ignored) {
  const Packet good = ndp_frame(ndp_solicitation_for(kPeerMac, kPeers6, kOurs6));
  NdpPacket out;
  ASSERT_TRUE(heard(good, out));
  struct Case {
    const char* what;
    std::function<void(Packet&)> spoil;
  };
  const Case cases[] = {
      {"from beyond the link", [](Packet& f) { f[21] = std::byte{254}; }},
      {"of another code", [](Packet& f) { f[55] = std::byte{1}; }},
      {"about a group", [](Packet& f) { f[62] = std::byte{0xff}; }},
      {"about the loopback",
       [](Packet& f) {
         store_ipv6(f.data() + 62, {0, 1});
       }},
      {"about an IPv4-mapped address", [](Packet& f) { store_ipv6(f.data() + 62, Ipv4Address{7}); }},
      {"from a group", [](Packet& f) { f[22] = std::byte{0xff}; }},
      {"an option without length", [](Packet& f) { f[79] = std::byte{0}; }},
      {"an option beyond the end", [](Packet& f) { f[79] = std::byte{2}; }},
      {"the MAC of a group", [](Packet& f) { f[80] |= std::byte{1}; }},
      {"no MAC at all", [](Packet& f) { std::fill(f.begin() + 80, f.end(), std::byte{0}); }},
      {"from the MAC of a group", [](Packet& f) { f[6] |= std::byte{1}; }},
      {"a nameless one with a MAC", [](Packet& f) { store_ipv6(f.data() + 22, {}); }},
      {"a solicited answer to a group",
       [](Packet& f) {
         f[54] = std::byte{136};
         f[58] = std::byte{0x60};
       }},
  };
  for (const Case& c : cases) {
    Packet bad = good;
    c.spoil(bad);
    sign(bad);
    EXPECT_FALSE(heard(bad, out)) << c.what;
  }
  Packet damaged = good;
  damaged[70] ^= std::byte{1};
  EXPECT_FALSE(heard(damaged, out)) << "checksum";
  for (std::size_t n = 0; n < good.size(); ++n)
    EXPECT_FALSE(heard(Packet(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)), out)) << n;
  // RFC 6980: behind a fragment header, though whole.
  Packet fragment = good;
  const Packet header = bytes({58, 0, 0, 0, 0, 0, 0, 1});
  fragment.insert(fragment.begin() + 54, header.begin(), header.end());
  fragment[20] = std::byte{44};
  store_be16(fragment.data() + 18, static_cast<uint16_t>(load_be16(fragment.data() + 18) + 8));
  EXPECT_FALSE(heard(fragment, out));
}

TEST(Ndp, a_nameless_question_to_another_group_is_ignored) {
  NdpPacket question = ndp_solicitation_for(kPeerMac, IpAddress{}, kOurs6);
  question.destination = kAllNodes;
  NdpPacket out;
  EXPECT_FALSE(heard(ndp_frame(question), out));
}

// ---- Multicast listeners

Packet mld_query(const IpAddress& group, const IpAddress& source, uint8_t hop_limit = 1, bool alert = true) {
  Packet frame(18 + 40 + 8 + 24);
  FrameAddress link;
  link.local_mac = kPeerMac;
  link.remote_mac = multicast_mac(kAllNodes);
  frame.resize(build_ethernet(link, ether_type::ipv6, frame) + 40 + 8 + 24);
  build_ipv6(source, kAllNodes, ipv6_next::hop_by_hop, hop_limit, 32, frame.data() + 14);
  store_be64(frame.data() + 54, alert ? 0x3a00'0502'0000'0100 : 0x3a00'0104'0000'0000);
  std::byte* const message = frame.data() + 62;
  std::fill(message, message + 24, std::byte{0});
  message[0] = std::byte{130};
  store_ipv6(message + 8, group);
  put_icmp6_checksum(source, kAllNodes, {message, 24});
  return frame;
}

TEST(Mld, queries_of_neighbours_about_our_groups_count) {
  const IpAddress group = solicited_node(kOurs6);
  const auto is_query = [&](const Packet& frame) {
    Icmp6View view;
    return parse_icmp6(frame, view) && is_mld_query(view, {&group, 1});
  };
  EXPECT_TRUE(is_query(mld_query({}, ip("fe80::1"))));
  EXPECT_TRUE(is_query(mld_query(group, ip("fe80::1"))));
  EXPECT_FALSE(is_query(mld_query(solicited_node(ip("fd00::7")), ip("fe80::1"))));
  EXPECT_FALSE(is_query(mld_query({}, kPeers6)));
  EXPECT_FALSE(is_query(mld_query({}, ip("fe80::1"), 2)));
  EXPECT_FALSE(is_query(mld_query({}, ip("fe80::1"), 1, false)));
  Packet damaged = mld_query({}, ip("fe80::1"));
  damaged.back() ^= std::byte{1};
  EXPECT_FALSE(is_query(damaged));
}

TEST(Mld, a_report_names_the_groups) {
  const IpAddress groups[] = {solicited_node(kOurs6), solicited_node(ip("fd00::7"))};
  FrameAddress link;
  link.local_mac = kOurMac;
  Packet frame(kMldFrameBytesMax);
  frame.resize(build_mld_report({}, groups, link, frame));
  Icmp6View view;
  ASSERT_TRUE(parse_icmp6(frame, view));
  EXPECT_TRUE(icmp6_checksum_ok(view));
  EXPECT_TRUE(view.ip.router_alert);
  EXPECT_EQ(view.ip.hop_limit, 1);
  EXPECT_EQ(view.ip.destination, ip("ff02::16"));
  EXPECT_EQ(view.link.local_mac, multicast_mac(ip("ff02::16")));
  ASSERT_EQ(view.message.size(), 48U);
  EXPECT_EQ(load_be16(view.message.data() + 6), 2);
  IpAddress second;
  load_ipv6(view.message.data() + 8 + 20 + 4, second);
  EXPECT_EQ(second, groups[1]);
  Packet little(kMldFrameBytesMax - 1);
  EXPECT_EQ(build_mld_report({}, groups, link, little), 0U);
}

// ---- Echo

Packet ping(std::size_t data, const IpAddress& to = kOurs6) {
  FrameAddress link;
  link.local_mac = kPeerMac;
  link.remote_mac = kOurMac;
  Packet frame(18 + 48 + data);
  frame.resize(build_ethernet(link, ether_type::ipv6, frame) + 48 + data);
  build_ipv6(kPeers6, to, ipv6_next::icmp, 64, static_cast<uint32_t>(8 + data), frame.data() + 14);
  std::byte* const message = frame.data() + 54;
  for (std::size_t i = 0; i < 8 + data; ++i) message[i] = static_cast<std::byte>(i);
  message[0] = std::byte{128};
  message[1] = message[2] = message[3] = std::byte{0};
  put_icmp6_checksum(kPeers6, to, {message, 8 + data});
  return frame;
}

TEST(Icmp6Echo, is_answered_with_its_bytes) {
  const Packet request = ping(56);
  Icmp6View view;
  ASSERT_TRUE(parse_icmp6(request, view));
  Icmp6EchoReply echo;
  ASSERT_TRUE(echo.take(view, kOurs6));
  Packet reply(256);
  reply.resize(echo.next(1280, 1, reply));
  Packet none(256);
  EXPECT_EQ(echo.next(1280, 1, none), 0U);
  Icmp6View answer;
  ASSERT_TRUE(parse_icmp6(reply, answer));
  EXPECT_TRUE(icmp6_checksum_ok(answer));
  EXPECT_EQ(answer.type(), icmp6_type::echo_reply);
  EXPECT_EQ(answer.ip.source, kOurs6);
  EXPECT_EQ(answer.ip.destination, kPeers6);
  EXPECT_TRUE(std::equal(answer.message.begin() + 4, answer.message.end(), view.message.begin() + 4));
}

TEST(Icmp6Echo, a_long_one_comes_in_fragments_that_fit_together) {
  const Packet request = ping(8952);
  Icmp6View view;
  ASSERT_TRUE(parse_icmp6(request, view));
  Icmp6EchoReply echo;
  ASSERT_TRUE(echo.take(view, kOurs6));
  Packet together;
  bool more = true;
  for (Packet frame(2048);; frame.resize(2048)) {
    const uint32_t n = echo.next(1280, 77, frame);
    if (n == 0) break;
    ASSERT_TRUE(more);
    ASSERT_LE(n, 14U + 1280);
    ASSERT_EQ(frame[20], std::byte{44});
    const uint16_t offset = load_be16(frame.data() + 54 + 2);
    EXPECT_EQ(offset & 0xfff8, together.size());
    more = (offset & 1) != 0;
    EXPECT_EQ(load_be32(frame.data() + 58), 77U);
    together.insert(together.end(), frame.begin() + 62, frame.begin() + n);
  }
  EXPECT_FALSE(more);
  ASSERT_EQ(together.size(), view.message.size());
  EXPECT_TRUE(std::equal(together.begin() + 4, together.end(), view.message.begin() + 4));
  ChecksumSum sum;
  add_ipv6_pseudo_header(sum, kOurs6, kPeers6, ipv6_next::icmp, static_cast<uint32_t>(together.size()));
  sum.add(together);
  EXPECT_EQ(sum.folded(), 0xffff);
}

TEST(Icmp6Echo, not_for_groups_and_not_when_damaged) {
  Icmp6View view;
  Icmp6EchoReply echo;
  const Packet group = ping(56, kAllNodes);
  ASSERT_TRUE(parse_icmp6(group, view));
  EXPECT_FALSE(echo.take(view, kOurs6));
  Packet damaged = ping(56);
  damaged.back() ^= std::byte{1};
  ASSERT_TRUE(parse_icmp6(damaged, view));
  EXPECT_FALSE(echo.take(view, kOurs6));
  Packet out(256);
  EXPECT_EQ(echo.next(1280, 1, out), 0U);
}

}  // namespace
}  // namespace migrx

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "dataplane/wire/arp.h"
#include "dataplane/wire/checksum.h"
#include "dataplane/wire/icmp.h"

namespace migrx {
namespace {

constexpr Ipv4Address kOurs{0x0a4d0002};
constexpr Ipv4Address kPeers{0x0a4d0001};

EthernetAddress mac(uint8_t last) {
  EthernetAddress m;
  m.bytes.fill(std::byte{0x02});
  m.bytes[5] = std::byte{last};
  return m;
}

std::vector<std::byte> request_frame(Ipv4Address target) {
  ArpPacket request = arp_request_for(mac(1), kPeers, target);
  std::vector<std::byte> frame(kArpFrameBytesMax);
  frame.resize(build_arp(request, frame));
  return frame;
}

TEST(Arp, request_for_us_is_answered_to_its_sender) {
  ArpPacket request;
  ASSERT_TRUE(parse_arp(request_frame(kOurs), request));
  EXPECT_EQ(request.link.local_mac, kEthernetBroadcast);
  ArpPacket reply;
  ASSERT_TRUE(arp_reply_for(request, mac(9), kOurs, reply));
  std::vector<std::byte> frame(kArpFrameBytesMax);
  frame.resize(build_arp(reply, frame));
  ASSERT_EQ(frame.size(), 42U);
  ArpPacket heard;
  ASSERT_TRUE(parse_arp(frame, heard));
  EXPECT_EQ(heard.operation, ArpPacket::Operation::reply);
  EXPECT_EQ(heard.sender_mac, mac(9));
  EXPECT_EQ(heard.sender_ip, kOurs);
  EXPECT_EQ(heard.target_mac, mac(1));
  EXPECT_EQ(heard.target_ip, kPeers);
  EXPECT_EQ(heard.link.local_mac, mac(1));
}

TEST(Arp, other_addresses_replies_and_multicast_senders_get_no_answer) {
  ArpPacket request;
  ArpPacket reply;
  ASSERT_TRUE(parse_arp(request_frame({0x0a4d0003}), request));
  EXPECT_FALSE(arp_reply_for(request, mac(9), kOurs, reply));
  ASSERT_TRUE(parse_arp(request_frame(kOurs), request));
  request.operation = ArpPacket::Operation::reply;
  EXPECT_FALSE(arp_reply_for(request, mac(9), kOurs, reply));
  request.operation = ArpPacket::Operation::request;
  request.sender_mac = kEthernetBroadcast;
  EXPECT_FALSE(arp_reply_for(request, mac(9), kOurs, reply));
}

TEST(Arp, malformed_packets_are_refused) {
  const auto good = request_frame(kOurs);
  ArpPacket out;
  for (std::size_t n = 0; n < good.size(); ++n) {
    EXPECT_FALSE(
        parse_arp(std::vector<std::byte>(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)), out));
  }
  for (const std::size_t fixed : {14U, 15U, 16U, 17U, 18U, 19U, 20U, 21U}) {
    auto bad = good;
    bad[fixed] ^= std::byte{0x40};
    EXPECT_FALSE(parse_arp(bad, out)) << fixed;
  }
  std::vector<std::byte> small(kArpFrameBytesMax - 1);
  EXPECT_EQ(build_arp(out, small), 0U);
}

// An echo request of `data` bytes, padded to 60 bytes.
std::vector<std::byte> echo_request(std::size_t data = 5) {
  std::vector<std::byte> f(std::max<std::size_t>(60, 42 + data), std::byte{0});
  for (int i = 0; i < 6; ++i) {
    f[static_cast<std::size_t>(i)] = mac(9).bytes[static_cast<std::size_t>(i)];
    f[static_cast<std::size_t>(i) + 6] = mac(1).bytes[static_cast<std::size_t>(i)];
  }
  store_be16(&f[12], 0x0800);
  store_be16(&f[14], 0x4500);
  store_be16(&f[16], static_cast<uint16_t>(20 + 8 + data));
  f[22] = std::byte{64};
  f[23] = std::byte{1};
  store_be32(&f[26], kPeers.value);
  store_be32(&f[30], kOurs.value);
  ChecksumSum ip;
  ip.add(Bytes{f}.subspan(14, 20));
  store_be16(&f[24], ip.checksum());
  f[34] = std::byte{8};
  store_be32(&f[38], 0x12340001);
  for (std::size_t i = 42; i < 42 + data; ++i) f[i] = static_cast<std::byte>(i);
  ChecksumSum icmp;
  icmp.add(Bytes{f}.subspan(34, 8 + data));
  store_be16(&f[36], icmp.checksum());
  return f;
}

// The reply's frame to `request`; empty: there is none.
std::vector<std::byte> echo_reply(Bytes request, Ipv4Address local_ip, std::size_t room = 128) {
  IcmpEchoReply echo;
  std::vector<std::byte> reply(room);
  reply.resize(echo.take(request, local_ip) ? echo.next(1500, 7, reply) : 0);
  return reply;
}

TEST(Icmp, echo_request_is_answered) {
  const auto request = echo_request();
  const auto reply = echo_reply(request, kOurs);
  ASSERT_EQ(reply.size(), 14U + 20 + 8 + 5);
  EXPECT_EQ(load_be32(&reply[26]), kOurs.value);
  EXPECT_EQ(load_be32(&reply[30]), kPeers.value);
  EXPECT_EQ(load_be16(&reply[18]), 0U);
  EXPECT_EQ(load_be16(&reply[20]), 0x4000U);
  EXPECT_EQ(reply[34], std::byte{0});
  EXPECT_TRUE(std::equal(reply.begin() + 38, reply.begin() + 47, request.begin() + 38));
  ChecksumSum ip;
  ip.add(Bytes{reply}.subspan(14, 20));
  EXPECT_EQ(ip.folded(), 0xffff);
  ChecksumSum icmp;
  icmp.add(Bytes{reply}.subspan(34, 13));
  EXPECT_EQ(icmp.folded(), 0xffff);
}

TEST(Icmp, nothing_else_is_answered) {
  const auto good = echo_request();
  EXPECT_TRUE(echo_reply(good, {0x0a4d0003}).empty());
  EXPECT_TRUE(echo_reply(good, kOurs, 46).empty());
  for (const std::size_t at : {12U, 14U, 20U, 23U, 26U, 34U, 35U, 36U, 44U}) {
    auto bad = good;
    bad[at] ^= std::byte{0x21};
    EXPECT_TRUE(echo_reply(bad, kOurs).empty()) << at;
  }
  for (std::size_t n = 0; n < 47; ++n) {
    const std::vector<std::byte> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_TRUE(echo_reply(cut, kOurs).empty()) << n;
  }
}

TEST(Icmp, a_jumbo_ping_is_answered_in_fragments_that_make_up_its_bytes) {
  for (const std::size_t data : {1472U, 1473U, 1480U, 2960U, 8972U}) {
    const auto request = echo_request(data);
    IcmpEchoReply echo;
    ASSERT_TRUE(echo.take(request, kOurs));
    std::vector<std::byte> whole;
    std::array<std::byte, 1514> frame;
    uint32_t frames = 0;
    bool more = true;
    for (uint32_t length = 0; (length = echo.next(1500, 7, frame)) != 0; ++frames) {
      ASSERT_TRUE(more);
      ASSERT_LE(length, 1514U);
      ASSERT_EQ(load_be16(&frame[16]), length - 14);
      const uint32_t flags = load_be16(&frame[20]);
      if (data > 1472) {
        ASSERT_EQ(load_be16(&frame[18]), 7U);
        ASSERT_EQ((flags & 0x1fffU) * 8, whole.size());
      } else {
        ASSERT_EQ(flags, 0x4000U);
      }
      more = (flags & 0x2000U) != 0;
      ChecksumSum ip;
      ip.add(Bytes{frame}.subspan(14, 20));
      EXPECT_EQ(ip.folded(), 0xffff);
      whole.insert(whole.end(), frame.begin() + 34, frame.begin() + length);
    }
    EXPECT_FALSE(more);
    EXPECT_EQ(frames, (data + 8 + 1479) / 1480);
    ASSERT_EQ(whole.size(), data + 8);
    EXPECT_EQ(whole[0], std::byte{0});
    EXPECT_TRUE(std::equal(whole.begin() + 4, whole.end(), request.begin() + 38));
    ChecksumSum icmp;
    icmp.add(whole);
    EXPECT_EQ(icmp.folded(), 0xffff);
  }
}

}  // namespace
}  // namespace migrx

#include <gtest/gtest.h>

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

// An echo request of 5 data bytes, padded to 60 bytes.
std::vector<std::byte> echo_request() {
  std::vector<std::byte> f(60, std::byte{0});
  for (int i = 0; i < 6; ++i) {
    f[static_cast<std::size_t>(i)] = mac(9).bytes[static_cast<std::size_t>(i)];
    f[static_cast<std::size_t>(i) + 6] = mac(1).bytes[static_cast<std::size_t>(i)];
  }
  store_be16(&f[12], 0x0800);
  store_be16(&f[14], 0x4500);
  store_be16(&f[16], 20 + 8 + 5);
  f[22] = std::byte{64};
  f[23] = std::byte{1};
  store_be32(&f[26], kPeers.value);
  store_be32(&f[30], kOurs.value);
  ChecksumSum ip;
  ip.add(Bytes{f}.subspan(14, 20));
  store_be16(&f[24], ip.checksum());
  f[34] = std::byte{8};
  store_be32(&f[38], 0x12340001);
  for (std::size_t i = 42; i < 47; ++i) f[i] = static_cast<std::byte>(i);
  ChecksumSum icmp;
  icmp.add(Bytes{f}.subspan(34, 13));
  store_be16(&f[36], icmp.checksum());
  return f;
}

TEST(Icmp, echo_request_is_answered) {
  const auto request = echo_request();
  std::vector<std::byte> reply(128);
  const uint32_t length = build_icmp_echo_reply(request, kOurs, reply);
  ASSERT_EQ(length, 14U + 20 + 8 + 5);
  EXPECT_EQ(load_be32(&reply[26]), kOurs.value);
  EXPECT_EQ(load_be32(&reply[30]), kPeers.value);
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
  std::vector<std::byte> reply(128);
  const auto good = echo_request();
  EXPECT_EQ(build_icmp_echo_reply(good, {0x0a4d0003}, reply), 0U);
  EXPECT_EQ(build_icmp_echo_reply(good, kOurs, MutableBytes{reply}.first(46)), 0U);
  for (const std::size_t at : {12U, 14U, 20U, 23U, 26U, 34U, 35U, 36U, 44U}) {
    auto bad = good;
    bad[at] ^= std::byte{0x21};
    EXPECT_EQ(build_icmp_echo_reply(bad, kOurs, reply), 0U) << at;
  }
  for (std::size_t n = 0; n < 47; ++n) {
    const std::vector<std::byte> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_EQ(build_icmp_echo_reply(cut, kOurs, reply), 0U) << n;
  }
}

}  // namespace
}  // namespace migrx

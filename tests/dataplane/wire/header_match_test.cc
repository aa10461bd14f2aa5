#include "dataplane/wire/header_match.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace migrx {
namespace {

using Packet = std::vector<std::byte>;

Packet data_segment(uint32_t payload, uint8_t flags = tcp_flag::ack) {
  OutSegment out;
  out.tuple = {Ipv4Address{0x0a4d0002}, Ipv4Address{0x0a4d0001}, 4444, 45678};
  out.link.remote_mac.bytes.fill(std::byte{2});
  out.link.local_mac.bytes.fill(std::byte{4});
  out.seq = SeqNum{0xffff'fffe};
  out.ack = SeqNum{7};
  out.window = 1000;
  out.flags = flags;
  out.options = tcp_option::timestamps;
  out.ts_val = 0x0102'0304;
  out.ts_ecr = 0x0506'0708;
  const std::vector<std::byte> bytes(payload, std::byte{0x55});
  out.payload = bytes;
  Packet packet(kHeaderBytesMax + payload);
  packet.resize(build_segment(out, packet, TxChecksum::full));
  return packet;
}

HeaderMatch learnt(const Packet& packet) {
  TcpSegment segment;
  EXPECT_EQ(parse_segment(packet, static_cast<uint32_t>(packet.size()), segment), WireCounter::segment_ok);
  EXPECT_TRUE(HeaderMatch::fits(segment, packet.data()));
  HeaderMatch match;
  match.learn(segment, packet.data());
  return match;
}

TEST(HeaderMatch, the_next_segments_of_a_bulk_sender_match) {
  const HeaderMatch match = learnt(data_segment(100));
  Packet next = data_segment(1448, tcp_flag::ack | tcp_flag::psh);
  store_be16(next.data() + 18, 0x1234);  // identification
  next[22] = std::byte{3};               // time to live
  next[15] = std::byte{2};               // ECN
  store_be32(next.data() + 38, 77);
  store_be32(next.data() + 42, 88);
  store_be16(next.data() + 48, 99);
  store_be32(next.data() + 58, 111);
  store_be32(next.data() + 62, 222);
  TcpInOrder out;
  ASSERT_TRUE(match.matches(next.data(), static_cast<uint32_t>(next.size()), out));
  EXPECT_EQ(out.seq, SeqNum{77});
  EXPECT_EQ(out.ack, SeqNum{88});
  EXPECT_EQ(out.window, 99);
  EXPECT_EQ(out.ts_val, 111U);
  EXPECT_EQ(out.payload_length, 1448U);
  EXPECT_TRUE(out.psh);
}

TEST(HeaderMatch, lengths_are_held_against_the_frame) {
  const Packet packet = data_segment(100);
  const HeaderMatch match = learnt(packet);
  const auto bytes = static_cast<uint32_t>(packet.size());
  TcpInOrder out;
  EXPECT_TRUE(match.matches(packet.data(), bytes, out));
  EXPECT_TRUE(match.matches(packet.data(), bytes + 6, out));  // Ethernet's padding
  EXPECT_EQ(out.payload_length, 100U);
  EXPECT_FALSE(match.matches(packet.data(), bytes - 1, out));
  EXPECT_FALSE(match.matches(packet.data(), 65, out));
  Packet lying = packet;
  for (const uint16_t total : {uint16_t{0}, uint16_t{51}, uint16_t{153}, uint16_t{0xffff}}) {
    store_be16(lying.data() + 16, total);
    EXPECT_FALSE(match.matches(lying.data(), bytes, out)) << total;
  }
  store_be16(lying.data() + 16, 52);
  ASSERT_TRUE(match.matches(lying.data(), bytes, out));
  EXPECT_EQ(out.payload_length, 0U);
}

TEST(HeaderMatch, other_layouts_do_not_fit) {
  TcpSegment segment;
  Packet packet = data_segment(100);
  for (const uint8_t flags : {tcp_flag::syn, tcp_flag::fin, tcp_flag::rst, tcp_flag::urg}) {
    packet[47] = std::byte{tcp_flag::ack} | std::byte{flags};
    ASSERT_EQ(parse_segment(packet, static_cast<uint32_t>(packet.size()), segment), WireCounter::segment_ok);
    EXPECT_FALSE(HeaderMatch::fits(segment, packet.data()));
  }
  packet = data_segment(100);
  store_be32(packet.data() + 54, 0x080a'0101);  // Timestamps first, whose value then begins with two NOPs
  ASSERT_EQ(parse_segment(packet, static_cast<uint32_t>(packet.size()), segment), WireCounter::segment_ok);
  EXPECT_FALSE(HeaderMatch::fits(segment, packet.data()));
}

// parse_segment() is the oracle: whatever the bytes, a match means that it would have said the same.
TEST(HeaderMatch, what_matches_parses_the_same) {
  const Packet original = data_segment(100);
  const HeaderMatch match = learnt(original);
  TcpSegment reference;
  ASSERT_EQ(parse_segment(original, static_cast<uint32_t>(original.size()), reference),
            WireCounter::segment_ok);
  std::mt19937 random(1);
  uint32_t matched = 0;
  for (uint32_t round = 0; round < 200'000; ++round) {
    Packet packet = original;
    const uint32_t changes = 1 + static_cast<uint32_t>(random() % 3);
    for (uint32_t i = 0; i < changes; ++i)
      packet[random() % HeaderMatch::kHeaderBytes] ^= static_cast<std::byte>(1U << (random() % 8));
    const auto bytes = static_cast<uint32_t>(packet.size()) - static_cast<uint32_t>(random() % 4);
    TcpInOrder out;
    if (!match.matches(packet.data(), bytes, out)) continue;
    ++matched;
    TcpSegment segment;
    ASSERT_EQ(parse_segment(Bytes{packet}.first(bytes), bytes, segment), WireCounter::segment_ok);
    ASSERT_EQ(segment.tuple, reference.tuple);
    ASSERT_EQ(segment.link, reference.link);
    ASSERT_EQ(segment.flags | tcp_flag::psh, tcp_flag::ack | tcp_flag::psh);
    ASSERT_EQ(segment.options, reference.options);
    ASSERT_EQ(segment.payload_offset, HeaderMatch::kHeaderBytes);
    ASSERT_EQ(segment.has(tcp_flag::psh), out.psh);
    ASSERT_EQ(segment.seq, out.seq);
    ASSERT_EQ(segment.ack, out.ack);
    ASSERT_EQ(segment.window, out.window);
    ASSERT_EQ(segment.ts_val, out.ts_val);
    ASSERT_EQ(segment.payload_length, out.payload_length);
  }
  EXPECT_GT(matched, 1000U);
}

}  // namespace
}  // namespace migrx

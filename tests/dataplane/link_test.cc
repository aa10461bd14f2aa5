// What a poll core says below TCP, and what becomes of its words when the port takes none.
#include "dataplane/link.h"

#include <gtest/gtest.h>

#include "dataplane/rate_limit.h"
#include "dataplane/wire/checksum.h"
#include "dataplane/wire/ethernet.h"
#include "tests/dataplane/poll_core_rig.h"

namespace migrx {
namespace {

using namespace testing;

void arp_arrives(Rig& rig, EthernetAddress mac, Ipv4Address ip) {
  ArpPacket word = arp_request_for(mac, ip, ip);
  MemoryQueue::Packet packet(kArpFrameBytesMax);
  packet.resize(build_arp(word, packet));
  rig.queues[0]->arrive(packet);
}

EthernetAddress last_destination(const Rig& rig) {
  FrameAddress link;
  std::memcpy(link.local_mac.bytes.data(), rig.queues[0]->sent.back().data(), 6);
  return link.local_mac;
}

TEST(LinkTest, every_connection_is_reset_though_the_port_takes_one_frame_at_a_time) {
  Rig rig({.buffers = 1024, .connections_max = 8});
  for (uint16_t i = 0; i < 8; ++i) {
    Peer peer(rig, static_cast<uint16_t>(1000 + i));
    Handoff* const handoff = peer.connect();
    ASSERT_NE(handoff, nullptr);
  }
  rig.queues[0]->sent.clear();
  rig.queues[0]->tx_frames_max = 1;
  rig.queues[0]->tx_room = 1;
  rig.stop();
  uint32_t resets = 0;
  for (const auto& packet : rig.queues[0]->sent) {
    TcpSegment segment;
    if (parse_segment(packet, static_cast<uint32_t>(packet.size()), segment) == WireCounter::segment_ok &&
        segment.has(tcp_flag::rst))
      ++resets;
  }
  EXPECT_EQ(resets, 8U);
  EXPECT_EQ(rig.count(PollCounter::tx_dropped), 0U);
}

TEST(LinkTest, bytes_reach_the_loader_while_the_port_sends_nothing) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  rig.queues[0]->tx_frames_max = 0;
  peer.data("one");
  rig.run();
  peer.data("two");
  rig.run();
  EXPECT_EQ(drain(*handoff), "onetwo");
  rig.queues[0]->tx_frames_max = UINT32_MAX;
  rig.run();
  const auto heard = peer.hears();
  ASSERT_FALSE(heard.empty());
  EXPECT_EQ(heard.back().ack, peer.next);
}

TEST(LinkTest, a_peer_that_only_repeats_itself_from_a_new_address_is_answered_there) {
  Rig rig;
  Peer peer(rig, 1000);
  ASSERT_NE(peer.connect(), nullptr);
  peer.data("one");
  rig.run();
  rig.queues[0]->sent.clear();
  peer.next = peer.next - 3U;
  peer.header().link.local_mac = mac_of(9);
  peer.data("one");
  rig.run();
  ASSERT_FALSE(rig.queues[0]->sent.empty());
  EXPECT_EQ(last_destination(rig), mac_of(9));
}

TEST(LinkTest, a_gratuitous_arp_moves_the_connections_of_that_host_and_no_group_address_does) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  arp_arrives(rig, mac_of(9), kTheirs);
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 1U);
  arp_arrives(rig, kEthernetBroadcast, kTheirs);
  arp_arrives(rig, {}, kTheirs);
  arp_arrives(rig, mac_of(10), Ipv4Address{kTheirs.value + 7});
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 1U);
  rig.queues[0]->sent.clear();
  rig.stop();
  ASSERT_FALSE(rig.queues[0]->sent.empty());
  EXPECT_EQ(last_destination(rig), mac_of(9));
}

// The kernel's end of a net_tap interface has its port's.
TEST(LinkTest, a_peer_may_have_our_own_mac_address_but_not_our_ip_address) {
  Rig rig;
  Peer peer(rig, 1000);
  ASSERT_NE(peer.connect(), nullptr);
  arp_arrives(rig, mac_of(2), kOurs);
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::address_conflicts), 0U);
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 0U);
  arp_arrives(rig, mac_of(2), kTheirs);
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 1U);
}

TEST(LinkTest, behind_a_gateway_its_arp_moves_the_connections) {
  const Ipv4Address gateway{(kOurs.value & 0xffff'ff00U) | 0xfe};
  // kTheirs is not in 10.77.0.2/32, so it is reached through the gateway.
  Rig rig({.prefix_length = 32, .gateway = gateway});
  Peer peer(rig, 1000);
  ASSERT_NE(peer.connect(), nullptr);
  arp_arrives(rig, mac_of(9), kTheirs);
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 0U);
  arp_arrives(rig, mac_of(9), gateway);
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 1U);
}

TEST(LinkTest, what_one_core_hears_by_arp_moves_the_connections_of_all) {
  Rig rig({.cores = 2});
  Peer peer(rig, 1000, 1);
  ASSERT_NE(peer.connect(1), nullptr);
  arp_arrives(rig, mac_of(9), kTheirs);  // at core 0
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved, 1), 1U);
}

TEST(LinkTest, a_silent_peer_is_asked_for) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  rig.queues[0]->sent.clear();
  for (uint32_t s = 0; s < 120 && rig.count(PollCounter::neighbours_asked) == 0; ++s) rig.pass(kNsPerSecond);
  EXPECT_GT(rig.count(PollCounter::neighbours_asked), 0U);
  bool asked = false;
  for (const auto& packet : rig.queues[0]->sent) {
    ArpPacket word;
    asked = asked || (parse_arp(packet, word) && word.target_ip == kTheirs && word.sender_ip == kOurs);
  }
  EXPECT_TRUE(asked);
}

TEST(LinkTest, resets_to_strangers_are_limited) {
  Rig rig({.buffers = 2048});
  Peer peer(rig, 1000);
  for (uint32_t i = 0; i < 1200; ++i) {
    peer.send(tcp_flag::ack);
    if (i % 32 == 31) rig.run(1);
  }
  rig.run(100);
  EXPECT_LE(rig.queues[0]->sent.size(), 1005U);
  EXPECT_GE(rig.count(PollCounter::resets_limited), 195U);
}

TEST(LinkTest, who_claims_our_address_is_counted_and_contradicted_once_in_ten_seconds) {
  Rig rig;
  for (uint32_t i = 0; i < 3; ++i) arp_arrives(rig, mac_of(9), kOurs);
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::address_conflicts), 3U);
  uint32_t announcements = 0;
  for (const auto& packet : rig.queues[0]->sent) {
    ArpPacket word;
    if (parse_arp(packet, word) && word.sender_ip == kOurs && word.sender_mac == mac_of(2) &&
        word.target_ip == kOurs && word.operation == ArpPacket::Operation::request)
      ++announcements;
  }
  EXPECT_EQ(announcements, 1U);
}

TEST(LinkTest, the_address_is_announced_again_two_seconds_later_and_when_asked_to) {
  Rig rig({.announce = true});
  rig.run();
  EXPECT_EQ(rig.queues[0]->sent.size(), 1U);
  rig.pass(2 * kNsPerSecond);
  EXPECT_EQ(rig.queues[0]->sent.size(), 2U);
  rig.pass(10 * kNsPerSecond);
  EXPECT_EQ(rig.queues[0]->sent.size(), 2U);
  rig.cores[0]->request_announcement();
  rig.run();
  EXPECT_EQ(rig.queues[0]->sent.size(), 3U);
}

// An echo request of `data` bytes as a peer sends it.
MemoryQueue::Packet ping(EthernetAddress to, Ipv4Address ip, std::size_t data = 56, uint16_t vlan = 0) {
  MemoryQueue::Packet f(60 + data, std::byte{0});
  // As its sender has it: remote is where it goes.
  const FrameAddress link{to, mac_of(1), vlan, static_cast<uint16_t>(vlan != 0 ? 1 : 0)};
  const uint32_t at = build_ethernet(link, ether_type::ipv4, f);
  f.resize(at + 28 + data);
  std::byte* const p = f.data() + at;
  store_be16(p, 0x4500);
  store_be16(p + 2, static_cast<uint16_t>(28 + data));
  p[8] = std::byte{64};
  p[9] = std::byte{1};
  store_be32(p + 12, kTheirs.value);
  store_be32(p + 16, ip.value);
  ChecksumSum sum;
  sum.add({p, 20});
  store_be16(p + 10, sum.checksum());
  p[20] = std::byte{8};
  ChecksumSum icmp;
  icmp.add({p + 20, 8 + data});
  store_be16(p + 22, icmp.checksum());
  return f;
}

TEST(LinkTest, only_a_ping_to_our_own_address_on_our_own_vlan_is_answered) {
  Rig rig({.vlan = 7});
  MemoryQueue& queue = *rig.queues[0];
  queue.arrive(ping(mac_of(2), kOurs, 56, 7));
  rig.run();
  EXPECT_EQ(queue.sent.size(), 1U);
  queue.arrive(ping(mac_of(3), kOurs, 56, 7));
  queue.arrive(ping(kEthernetBroadcast, kOurs, 56, 7));
  queue.arrive(ping(mac_of(2), Ipv4Address{kOurs.value + 1}, 56, 7));
  queue.arrive(ping(mac_of(2), kOurs, 56, 8));
  queue.arrive(ping(mac_of(2), kOurs));
  rig.run();
  EXPECT_EQ(queue.sent.size(), 1U);
  EXPECT_EQ(rig.count(PollCounter::icmp_replies), 1U);
}

TEST(LinkTest, a_jumbo_ping_is_answered_by_a_port_that_sends_short_frames) {
  Rig rig({.buffer_bytes = 9216});
  rig.queues[0]->arrive(ping(mac_of(2), kOurs, 8972));
  rig.run();
  EXPECT_EQ(rig.queues[0]->sent.size(), 7U);
  for (const auto& packet : rig.queues[0]->sent) EXPECT_LE(packet.size(), 1514U);
  EXPECT_EQ(rig.count(PollCounter::icmp_replies), 1U);
}

TEST(LinkTest, pings_beyond_the_limit_are_counted) {
  Rig rig({.buffers = 4096});
  for (uint32_t i = 0; i < Link::kEchoRepliesPerSecond + 200; ++i) {
    rig.queues[0]->arrive(ping(mac_of(2), kOurs));
    if (i % 32 == 31) rig.run(1);
  }
  rig.run(100);
  EXPECT_LE(rig.count(PollCounter::icmp_replies), Link::kEchoRepliesPerSecond + 5);
  EXPECT_GE(rig.count(PollCounter::icmp_limited), 190U);
}

TEST(LinkTest, a_port_that_sends_nothing_for_long_does_not_stop_the_clocks_of_its_connections) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  peer.data("one");
  rig.run();
  rig.queues[0]->tx_frames_max = 0;
  // A peer that is never heard again is given up, though nothing that asks for it can leave.
  for (uint32_t s = 0; s < 3600 && rig.cores[0]->connections() > 0; ++s) rig.pass(kNsPerSecond);
  EXPECT_EQ(rig.cores[0]->connections(), 0U);
  EXPECT_GT(rig.count(PollCounter::tx_full), 0U);
}

TEST(RateLimit, a_burst_and_then_the_average) {
  RateLimit limit(100);
  uint32_t taken = 0;
  for (uint32_t i = 0; i < 1000; ++i) taken += limit.take(10 * kNsPerSecond) ? 1U : 0U;
  EXPECT_EQ(taken, 100U);
  EXPECT_FALSE(limit.take(10 * kNsPerSecond + 9 * kNsPerMs));
  EXPECT_TRUE(limit.take(10 * kNsPerSecond + 10 * kNsPerMs));
}

}  // namespace
}  // namespace migrx

#include "dataplane/poll_core.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "dataplane/wire/arp.h"
#include "dataplane/wire/checksum.h"
#include "tests/dataplane/poll_core_rig.h"

namespace migrx {
namespace {

using testing::bytes_of;
using testing::drain;
using testing::kOurs;
using testing::kPort;
using testing::kTheirs;
using testing::mac_of;
using testing::MemoryQueue;
using testing::Peer;
using testing::Rig;

MemoryQueue::Packet arp_for(Ipv4Address ip) {
  MemoryQueue::Packet packet(kArpFrameBytesMax);
  packet.resize(build_arp(arp_request_for(mac_of(1), kTheirs, ip), packet));
  return packet;
}

TEST(PollCore, answers_arp_for_its_own_address_only) {
  Rig rig;
  rig.queues[0]->arrive(arp_for(kTheirs));
  rig.queues[0]->arrive(arp_for(kOurs));
  rig.run();
  ASSERT_EQ(rig.queues[0]->sent.size(), 1U);
  ArpPacket reply;
  ASSERT_TRUE(parse_arp(rig.queues[0]->sent[0], reply));
  EXPECT_EQ(reply.operation, ArpPacket::Operation::reply);
  EXPECT_EQ(reply.sender_mac, mac_of(2));
  EXPECT_EQ(reply.sender_ip, kOurs);
  EXPECT_EQ(reply.target_mac, mac_of(1));
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCore, announces_its_address_when_it_starts) {
  Rig rig({.announce = true});
  ASSERT_EQ(rig.queues[0]->sent.size(), 1U);
  ArpPacket announcement;
  ASSERT_TRUE(parse_arp(rig.queues[0]->sent[0], announcement));
  EXPECT_EQ(announcement.sender_ip, kOurs);
  EXPECT_EQ(announcement.target_ip, kOurs);
  EXPECT_EQ(announcement.link.local_mac, kEthernetBroadcast);  // whom it was sent to
}

TEST(PollCore, answers_ping) {
  Rig rig;
  // Ethernet, IPv4 (20), ICMP echo request with 4 bytes.
  MemoryQueue::Packet packet(14 + 20 + 8 + 4);
  const auto put = [&packet](std::size_t at, const EthernetAddress& mac) {
    std::copy(mac.bytes.begin(), mac.bytes.end(), packet.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(0, mac_of(2));
  put(6, mac_of(1));
  std::byte* const p = packet.data();
  store_be16(p + 12, 0x0800);
  store_be16(p + 14, 0x4500);
  store_be16(p + 16, 32);
  store_be16(p + 22, 64 << 8 | 1);
  store_be32(p + 26, kTheirs.value);
  store_be32(p + 30, kOurs.value);
  ChecksumSum ip;
  ip.add({p + 14, 20});
  store_be16(p + 24, ip.checksum());
  store_be16(p + 34, 0x0800);
  store_be32(p + 42, 0x61626364);
  ChecksumSum icmp;
  icmp.add({p + 34, 12});
  store_be16(p + 36, icmp.checksum());
  rig.queues[0]->arrive(packet);
  rig.run();
  ASSERT_EQ(rig.queues[0]->sent.size(), 1U);
  const MemoryQueue::Packet& reply = rig.queues[0]->sent[0];
  ASSERT_GE(reply.size(), packet.size());
  EXPECT_EQ(load_be16(&reply[34]), 0);  // echo reply
  EXPECT_EQ(load_be32(&reply[42]), 0x61626364U);
  EXPECT_EQ(load_be32(&reply[30]), kTheirs.value);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCore, a_connection_is_announced_and_its_bytes_are_handed_over_in_order) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  EXPECT_STREQ(handoff->peer.data(), "10.77.0.1:1000");
  EXPECT_EQ(rig.cores[0]->connections(), 1U);
  peer.data("abc");
  peer.data("defg");
  rig.run();
  const auto heard = peer.hears();
  ASSERT_EQ(heard.size(), 1U);  // one acknowledgment for the burst
  EXPECT_EQ(heard[0].ack, peer.next);
  EXPECT_EQ(drain(*handoff), "abcdefg");
  rig.run();
  EXPECT_EQ(rig.buffers_out(), 0U);
  EXPECT_EQ(handoff->bytes_received.read(), 7U);
  EXPECT_EQ(rig.cores[0]->take_accepted(), nullptr);
}

TEST(PollCore, a_burst_of_many_flows_gets_one_acknowledgment_each) {
  Rig rig;
  std::vector<std::unique_ptr<Peer>> peers;
  std::vector<Handoff*> handoffs;
  for (uint16_t i = 0; i < 4; ++i) {
    peers.push_back(std::make_unique<Peer>(rig, static_cast<uint16_t>(2000 + i)));
    handoffs.push_back(peers[i]->connect());
    ASSERT_NE(handoffs[i], nullptr);
  }
  // Interleaved, so that the flow of the segment before never helps.
  std::string expected;
  for (uint32_t round = 0; round < 8; ++round) {
    for (auto& peer : peers) peer->data(std::string(10, static_cast<char>('a' + round)));
    expected += std::string(10, static_cast<char>('a' + round));
  }
  rig.run(1);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(peers[i]->hears().size(), 1U);
    EXPECT_EQ(drain(*handoffs[i]), expected);
  }
  EXPECT_EQ(rig.count(PollCounter::bursts_full), 1U);
}

TEST(PollCore, damaged_segments_are_dropped_unless_the_port_vouches_for_them) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  MemoryQueue::Packet packet = peer.frame(tcp_flag::ack, "hello");
  packet.back() ^= std::byte{1};
  rig.queues[0]->arrive(packet);
  rig.run();
  EXPECT_EQ(rig.count(WireCounter::tcp_checksum_bad), 1U);
  EXPECT_EQ(drain(*handoff), "");
  rig.queues[0]->arrive(packet, ChecksumState::good, ChecksumState::good);
  rig.run();
  EXPECT_EQ(drain(*handoff), "helln");
  peer.advance(tcp_flag::ack, 5);
  // A sound one that the port calls bad.
  rig.queues[0]->arrive(peer.frame(tcp_flag::ack, "world"), ChecksumState::good, ChecksumState::bad);
  rig.queues[0]->arrive(peer.frame(tcp_flag::ack, "world"), ChecksumState::bad, ChecksumState::good);
  rig.run();
  EXPECT_EQ(rig.count(WireCounter::tcp_checksum_bad), 2U);
  EXPECT_EQ(rig.count(WireCounter::ip_checksum_bad), 1U);
  EXPECT_EQ(drain(*handoff), "");
  rig.run();
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCore, jumbo_frames_in_chained_buffers_arrive_whole) {
  for (const uint32_t buffer_bytes : {256U, 1024U, 2048U}) {
    Rig rig({.buffers = 1024, .buffer_bytes = buffer_bytes, .handoff_slots = 255, .mss = 8960});
    Peer peer(rig, 1000);
    Handoff* const handoff = peer.connect();
    ASSERT_NE(handoff, nullptr);
    std::string expected;
    // Sizes around the ends of buffers: 54 bytes of headers come first.
    for (const std::size_t size : {8960UL, 202UL, 203UL, 1UL, 970UL, 971UL, 1994UL, 1995UL, 4000UL}) {
      std::string payload(size, '\0');
      for (std::size_t i = 0; i < size; ++i) payload[i] = static_cast<char>('A' + (expected.size() + i) % 53);
      peer.data(payload);
      expected += payload;
      rig.run(1);
    }
    EXPECT_EQ(drain(*handoff), expected) << buffer_bytes;
    rig.run();
    EXPECT_EQ(rig.buffers_out(), 0U);
    EXPECT_GT(rig.count(PollCounter::frames_chained), 0U);
    EXPECT_EQ(peer.hears().back().ack, peer.next);
  }
}

TEST(PollCore, a_chain_of_too_many_buffers_is_dropped_whole) {
  Rig rig({.buffers = 1024, .buffer_bytes = 128, .handoff_slots = 255, .mss = 8960});
  Peer peer(rig, 1000);
  ASSERT_NE(peer.connect(), nullptr);
  peer.data(std::string(8900, 'x'));
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::chain_too_long), 1U);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCore, ethernet_padding_is_no_payload) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  MemoryQueue::Packet packet = peer.frame(tcp_flag::ack, "ab");
  packet.resize(60, std::byte{0x5a});
  rig.queues[0]->arrive(packet);
  peer.advance(tcp_flag::ack, 2);
  rig.run();
  EXPECT_EQ(drain(*handoff), "ab");
}

TEST(PollCore, strangers_segments_are_reset_and_others_frames_ignored) {
  Rig rig;
  Peer stranger(rig, 3000);
  stranger.send(tcp_flag::ack, "who?");
  rig.run();
  auto heard = stranger.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));
  // Another port of ours.
  stranger.header().tuple.remote_port = kPort + 1;
  rig.queues[0]->arrive(stranger.frame(tcp_flag::syn));
  rig.run();
  ASSERT_EQ(rig.queues[0]->sent.size(), 1U);
  rig.queues[0]->sent.clear();
  stranger.header().tuple.remote_port = kPort;
  // Another station's address, Ethernet's or IP's.
  stranger.header().link.remote_mac = mac_of(9);
  rig.queues[0]->arrive(stranger.frame(tcp_flag::syn));
  stranger.header().link.remote_mac = kEthernetBroadcast;
  rig.queues[0]->arrive(stranger.frame(tcp_flag::syn));
  stranger.header().link.remote_mac = mac_of(2);
  stranger.header().tuple.remote_ip = Ipv4Address{kOurs.value + 1};
  rig.queues[0]->arrive(stranger.frame(tcp_flag::syn));
  rig.run();
  EXPECT_TRUE(rig.queues[0]->sent.empty());
  EXPECT_EQ(rig.count(PollCounter::other_mac), 2U);
  EXPECT_EQ(rig.count(WireCounter::not_our_address), 1U);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

// RFC 9293 section 3.9.2.3 (MUST-57), RFC 1122 section 3.2.1.3: on the link and in IP.
TEST(PollCore, segments_to_a_broadcast_or_multicast_address_are_ignored) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  Peer stranger(rig, 3000);
  const EthernetAddress multicast{
      {std::byte{0x01}, std::byte{0}, std::byte{0x5e}, std::byte{0}, std::byte{0}, std::byte{1}}};
  uint32_t sent = 0;
  const auto send_both = [&](EthernetAddress mac, Ipv4Address ip) {
    for (Peer* const from : {&peer, &stranger})
      for (const uint8_t flags : {tcp_flag::syn, tcp_flag::ack, tcp_flag::rst}) {
        const OutSegment before = from->header();
        from->header().link.remote_mac = mac;
        from->header().tuple.remote_ip = ip;
        rig.queues[0]->arrive(from->frame(flags, flags == tcp_flag::ack ? "to all" : ""));
        from->header() = before;
        ++sent;
      }
    rig.run();
  };
  send_both(kEthernetBroadcast, kOurs);
  send_both(multicast, kOurs);
  EXPECT_EQ(rig.count(PollCounter::other_mac), sent);
  sent = 0;
  for (const uint32_t ip : {0xffff'ffffU, kOurs.value | 0xff, 0xe000'0001U, 0U}) send_both(mac_of(2), {ip});
  EXPECT_EQ(rig.count(WireCounter::not_our_address), sent);
  EXPECT_TRUE(rig.queues[0]->sent.empty());
  EXPECT_EQ(drain(*handoff), "");
  peer.data("to one");
  rig.run();
  EXPECT_EQ(drain(*handoff), "to one");
}

// Neither a SYN-ACK nor an RST goes to an address that belongs to no single host.
TEST(PollCore, segments_from_a_broadcast_or_multicast_address_are_ignored) {
  Rig rig;
  uint32_t sent = 0;
  for (const uint32_t ip : {0xffff'ffffU, 0xe000'0001U, 0xefff'ffffU, 0xf000'0001U, 0U})
    for (const uint8_t flags : {tcp_flag::syn, tcp_flag::ack, tcp_flag::rst}) {
      Peer nobody(rig, 3000);
      nobody.header().tuple.local_ip = Ipv4Address{ip};
      nobody.send(flags);
      ++sent;
    }
  rig.run();
  EXPECT_TRUE(rig.queues[0]->sent.empty());
  EXPECT_EQ(rig.count(WireCounter::ip_header_bad), sent);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

// Answering the first would be talking to oneself for ever.
TEST(PollCore, segments_from_itself_or_a_loopback_are_ignored) {
  Rig rig;
  uint32_t sent = 0;
  for (const Ipv4Address ip : {kOurs, Ipv4Address{0x7f00'0001}, Ipv4Address{0x7fff'ffff}})
    for (const uint8_t flags : {tcp_flag::syn, tcp_flag::ack, tcp_flag::rst}) {
      Peer nobody(rig, 3000);
      nobody.header().tuple.local_ip = ip;
      nobody.send(flags);
      ++sent;
    }
  rig.run();
  EXPECT_TRUE(rig.queues[0]->sent.empty());
  EXPECT_EQ(rig.count(PollCounter::impossible_source), sent);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCore, a_vlan_port_takes_and_sends_its_tag_only) {
  Rig rig({.vlan = 12});
  Peer untagged(rig, 1000);
  untagged.send(tcp_flag::syn);
  Peer other(rig, 1001);
  other.header().link.tagged = 1;
  other.header().link.vlan_tci = 13;
  other.send(tcp_flag::syn);
  rig.run();
  EXPECT_TRUE(rig.queues[0]->sent.empty());
  EXPECT_EQ(rig.count(PollCounter::other_vlan), 2U);
  Peer tagged(rig, 1002);
  tagged.header().link.tagged = 1;
  tagged.header().link.vlan_tci = 0x600c;  // with a priority
  tagged.send(tcp_flag::syn);
  rig.run();
  const auto heard = tagged.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_EQ(heard[0].link.tagged, 1);
  EXPECT_EQ(heard[0].link.vlan_tci & 0xfff, 12);
}

// The loader does nothing: the window closes, nothing is lost; when it drains, the peer hears of it although
// it sends nothing.
TEST(PollCore, a_slow_loader_closes_the_window_and_its_release_reopens_it) {
  Rig rig({.handoff_slots = 15, .mss = 1000});
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  std::string expected;
  uint32_t window = UINT32_MAX;
  for (uint32_t i = 0; i < 100 && window >= 1000; ++i) {
    expected += std::string(1000, static_cast<char>('a' + i));
    peer.data(std::string(1000, static_cast<char>('a' + i)));
    rig.run();
    const auto heard = peer.hears();
    if (!heard.empty()) window = heard.back().window;
  }
  EXPECT_LT(window, 1000U);
  EXPECT_LE(rig.buffers_out(), 15U);
  EXPECT_TRUE(peer.hears().empty());
  EXPECT_TRUE(drain(*handoff) == expected);
  rig.run();
  const auto update = peer.hears();
  ASSERT_EQ(update.size(), 1U);
  EXPECT_GE(update[0].window, 1000);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCore, connections_beyond_the_limit_are_refused_until_one_is_free_again) {
  Rig rig({.connections_max = 2});
  Peer first(rig, 1000);
  Peer second(rig, 1001);
  Handoff* const one = first.connect();
  ASSERT_NE(one, nullptr);
  ASSERT_NE(second.connect(), nullptr);
  Peer third(rig, 1002);
  third.send(tcp_flag::syn);
  rig.run();
  auto heard = third.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));

  // The first one ends. Its place is free when the peer, the worker and the control thread have all let go.
  first.send(tcp_flag::ack | tcp_flag::fin, "bye");
  rig.run();
  StreamEnd end = StreamEnd::none;
  EXPECT_EQ(drain(*one, &end), "bye");
  EXPECT_EQ(end, StreamEnd::fin);
  ASSERT_TRUE(one->close());
  rig.run();
  first.hears();
  first.send(tcp_flag::ack);
  rig.run();
  EXPECT_EQ(rig.cores[0]->connections(), 1U);
  EXPECT_EQ(rig.cores[0]->connections_in_use(), 2U);
  one->detach();
  rig.run();
  EXPECT_EQ(rig.cores[0]->connections_in_use(), 2U);
  one->retire();
  rig.run();
  EXPECT_EQ(rig.cores[0]->connections_in_use(), 1U);

  Peer fourth(rig, 1003);
  Handoff* const again = fourth.connect();
  ASSERT_EQ(again, one);
  EXPECT_STREQ(again->peer.data(), "10.77.0.1:1003");
  EXPECT_EQ(again->bytes_received.read(), 0U);
  fourth.data("fresh");
  rig.run();
  EXPECT_EQ(drain(*again), "fresh");
}

TEST(PollCore, the_control_thread_sends_closes_and_resets) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  ASSERT_TRUE(handoff->send(bytes_of("pong")));
  rig.run();
  static_cast<void>(peer.hears());
  EXPECT_EQ(peer.payload_heard, "pong");
  EXPECT_FALSE(handoff->all_acknowledged());
  peer.send(tcp_flag::ack);
  rig.run();
  EXPECT_TRUE(handoff->all_acknowledged());
  ASSERT_TRUE(handoff->abort());
  rig.run();
  const auto heard = peer.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));
  StreamEnd end = StreamEnd::none;
  drain(*handoff, &end);
  EXPECT_EQ(end, StreamEnd::local);
  EXPECT_EQ(rig.cores[0]->connections(), 0U);
}

TEST(PollCore, stopping_resets_connections_and_returns_every_buffer) {
  Rig rig;
  Peer peer(rig, 1000);
  ASSERT_NE(peer.connect(), nullptr);
  peer.data("never read");
  peer.next += 100;  // a hole: the next one waits for reassembly
  peer.data("out of order");
  rig.run();
  static_cast<void>(peer.hears());
  EXPECT_EQ(rig.buffers_out(), 2U);
  rig.stop();
  const auto heard = peer.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCore, not_listening_refuses_newcomers_and_keeps_the_others) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  rig.tenants.close(*rig.tenant);
  Peer late(rig, 1001);
  late.send(tcp_flag::syn);
  peer.data("still here");
  rig.run();
  const auto heard = late.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));
  EXPECT_EQ(drain(*handoff), "still here");
}

TEST(PollCore, half_open_handshakes_are_reset_when_listening_ends) {
  Rig rig;
  Peer silent(rig, 1000);  // as QEMU's main channel while others are missing
  silent.send(tcp_flag::syn);
  rig.run();
  ASSERT_EQ(silent.hears().size(), 1U);
  rig.tenants.close(*rig.tenant);
  rig.run();
  const auto heard = silent.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));
  EXPECT_EQ(heard[0].ack, silent.next);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCore, a_full_transmit_queue_loses_frames_not_connections) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  rig.queues[0]->tx_room = 0;
  peer.data("one");
  rig.run();
  rig.pass(2 * Link::kStuckNs);
  EXPECT_TRUE(peer.hears().empty());
  EXPECT_GT(rig.count(PollCounter::tx_dropped), 0U);
  rig.queues[0]->tx_room = UINT32_MAX;
  peer.data("two");
  rig.run();
  const auto heard = peer.hears();
  ASSERT_FALSE(heard.empty());
  EXPECT_EQ(heard.back().ack, peer.next);
  EXPECT_EQ(drain(*handoff), "onetwo");
}

TEST(PollCore, an_empty_pool_loses_frames_that_the_peer_sends_again) {
  Rig rig({.buffers = 4, .handoff_slots = 15});
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  std::vector<MemoryQueue::Packet> packets;
  for (uint32_t i = 0; i < 6; ++i) {
    packets.push_back(peer.frame(tcp_flag::ack, "abcd"));
    peer.advance(tcp_flag::ack, 4);
    rig.queues[0]->arrive(packets.back());
  }
  rig.run();
  EXPECT_EQ(rig.queues[0]->dropped_no_buffer, 2U);
  EXPECT_EQ(drain(*handoff).size(), 16U);
  rig.run();
  for (uint32_t i = 4; i < 6; ++i) rig.queues[0]->arrive(packets[i]);
  rig.run();
  EXPECT_EQ(drain(*handoff).size() + 16U, 24U);
  rig.run();
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCoreConfig, what_cannot_work_is_refused) {
  testing::MemoryPool pool(4, 2048);
  MemoryQueue queue(pool, mac_of(2));
  PollCoreConfig good;
  good.ports = {{&queue, {PortAddress{kOurs}}, PollPort::kAnyVlan}};
  EXPECT_NO_THROW(PollCore{good});
  PollCoreConfig bad = good;
  bad.ports.clear();
  EXPECT_THROW(PollCore{bad}, std::invalid_argument);
  bad = good;
  bad.ports.push_back(bad.ports[0]);
  EXPECT_THROW(PollCore{bad}, std::invalid_argument);
  bad = good;
  bad.connections_max = 0;
  EXPECT_THROW(PollCore{bad}, std::invalid_argument);
  bad = good;
  bad.handoff_slots = 4;
  bad.tcp.mss = 65495;
  EXPECT_THROW(PollCore{bad}, std::invalid_argument);
  bad = good;
  PollMesh mesh(2, 8, 1);
  bad.mesh = &mesh;
  bad.index = 2;
  EXPECT_THROW(PollCore{bad}, std::invalid_argument);
}

TEST(SilentPeers, are_asked_of_every_poll_core) {
  Rig rig({.cores = 2});
  const std::unique_ptr<SilentPeers> peers = rig.tenants.silent_peers(*rig.tenant);
  peers->ask();
  EXPECT_EQ(peers->oldest_ns(), std::nullopt);
  rig.cores[0]->do_work(rig.now_ns);
  EXPECT_EQ(peers->oldest_ns(), std::nullopt) << "one has not answered";
  rig.cores[1]->do_work(rig.now_ns);
  EXPECT_EQ(peers->oldest_ns(), kNever);
  peers->ask();
  EXPECT_EQ(peers->oldest_ns(), std::nullopt) << "the last answer is old";
}

}  // namespace
}  // namespace migrx

// Reset mode: what a source hears when its receiver is gone.
#include <gtest/gtest.h>

#include "dataplane/wire/arp.h"
#include "tests/dataplane/poll_core_rig.h"

namespace migrx {
namespace {

using testing::kOurs;
using testing::kPort;
using testing::kTheirs;
using testing::mac_of;
using testing::Peer;
using testing::Rig;

// RFC 9293 section 3.10.7.1: a RST that the peer accepts takes its sequence number from SEG.ACK.
TEST(PollCoreReset, every_segment_is_answered_and_quiet_ends_it) {
  Rig rig;
  rig.cores[0]->request_reset_mode({.quiet_ns = kNsPerSecond, .max_ns = 60 * kNsPerSecond});
  rig.run();
  for (uint32_t i = 0; i < 5; ++i) {
    rig.pass(kNsPerSecond / 2);
    EXPECT_FALSE(rig.cores[0]->reset_mode_over());
    Peer peer(rig, static_cast<uint16_t>(5000 + i));
    peer.heard_to = SeqNum{0x1234'0000 + i};
    peer.send(i == 4 ? tcp_flag::syn : tcp_flag::ack, i == 4 ? "" : "a predecessor's data");
    rig.run();
    const auto heard = peer.hears();
    ASSERT_EQ(heard.size(), 1U);
    EXPECT_TRUE(heard[0].has(tcp_flag::rst));
    if (i < 4) {
      EXPECT_EQ(heard[0].seq, (SeqNum{0x1234'0000 + i}));
    }
  }
  EXPECT_EQ(rig.count(PollCounter::resets_in_reset_mode), 5U);
  rig.pass(kNsPerSecond);
  EXPECT_TRUE(rig.cores[0]->reset_mode_over());
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST(PollCoreReset, other_ports_too_and_arp_still_works) {
  Rig rig;
  rig.cores[0]->request_reset_mode();
  rig.run();
  Peer peer(rig, 5000);
  peer.header().tuple.remote_port = kPort + 7;
  rig.queues[0]->arrive(peer.frame(tcp_flag::ack, "x"));
  testing::MemoryQueue::Packet request(kArpFrameBytesMax);
  request.resize(build_arp(arp_request_for(mac_of(1), kTheirs, kOurs), request));
  rig.queues[0]->arrive(request);
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::arp_replies), 1U);
  EXPECT_EQ(rig.count(PollCounter::resets_in_reset_mode), 1U);
  EXPECT_EQ(rig.queues[0]->sent.size(), 2U);
}

TEST(PollCoreReset, a_source_that_never_stops_cannot_prolong_it_for_ever) {
  Rig rig;
  rig.cores[0]->request_reset_mode({.quiet_ns = kNsPerSecond, .max_ns = 3 * kNsPerSecond});
  rig.run();
  uint32_t rounds = 0;
  Peer peer(rig, 5000);
  for (; !rig.cores[0]->reset_mode_over() && rounds < 100; ++rounds) {
    peer.send(tcp_flag::ack, "again");
    rig.pass(kNsPerSecond / 10);
  }
  EXPECT_GE(rounds, 29U);
  EXPECT_LE(rounds, 31U);
}

TEST(PollCoreReset, open_connections_are_reset_when_it_begins) {
  Rig rig;
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  peer.data("half a page");
  rig.run();
  static_cast<void>(peer.hears());
  rig.cores[0]->request_reset_mode();
  rig.run();
  auto heard = peer.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));
  StreamEnd end = StreamEnd::none;
  EXPECT_EQ(testing::drain(*handoff, &end), "half a page");
  EXPECT_EQ(end, StreamEnd::local);
  // What was under way gets the same answer.
  peer.data("the other half");
  rig.run();
  heard = peer.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));
  rig.run();
  EXPECT_EQ(rig.buffers_out(), 0U);
}

// RFC 9293 section 3.5.1, figure 9: a source that has sent everything and waits for an answer sends nothing.
// Asked with a SYN it acknowledges what it expects, and that brings the RST it believes.
TEST(PollCoreReset, a_peer_that_is_silent_is_asked_and_then_told) {
  Rig rig;
  Peer peer(rig, 5000);
  const LostConnection lost{{kTheirs, kOurs, 5000, kPort}, {mac_of(9), mac_of(8), 0, 0}, kTheirs};
  rig.cores[0]->request_reset_mode({.lost = {lost}});
  rig.run(1);
  ASSERT_EQ(rig.queues[0]->sent.size(), 2U);
  ArpPacket question;
  ASSERT_TRUE(parse_arp(rig.queues[0]->sent[0], question));
  EXPECT_EQ(question.target_ip, kTheirs);
  EXPECT_EQ(question.sender_mac, mac_of(2));
  TcpSegment syn;
  ASSERT_EQ(parse_segment(rig.queues[0]->sent[1], static_cast<uint32_t>(rig.queues[0]->sent[1].size()), syn),
            WireCounter::segment_ok);
  EXPECT_EQ(syn.flags, tcp_flag::syn | tcp_flag::ack);  // a bare one would not get through conntrack
  EXPECT_EQ(syn.link.local_mac, mac_of(9));             // its "local" is where it goes
  EXPECT_EQ(syn.link.remote_mac, mac_of(2));            // from this port, not from the predecessor's
  rig.queues[0]->sent.clear();

  // The link was made anew: the peer has another MAC now, and says so.
  ArpPacket answer;
  ASSERT_TRUE(arp_reply_for(question, mac_of(1), kTheirs, answer));
  testing::MemoryQueue::Packet frame(kArpFrameBytesMax);
  frame.resize(build_arp(answer, frame));
  rig.queues[0]->arrive(frame);
  rig.run(1);
  auto heard = peer.hears();  // checks that it goes to mac_of(1)
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_EQ(heard[0].flags, tcp_flag::syn | tcp_flag::ack);

  peer.heard_to = SeqNum{0x1234'5678};
  peer.send(tcp_flag::ack);
  rig.run(1);
  heard = peer.hears();
  ASSERT_GE(heard.size(), 1U);
  EXPECT_TRUE(heard.back().has(tcp_flag::rst));
  EXPECT_EQ(heard.back().seq, (SeqNum{0x1234'5678}));
  EXPECT_EQ(rig.count(PollCounter::probes_in_reset_mode), 2U);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

// A successor on the same port serves its own source and frees the predecessor's.
TEST(PollCoreReset, beside_a_living_connection_the_lost_ones_are_told) {
  Rig rig;
  Peer living(rig, 1000);
  Handoff* const handoff = living.connect();
  ASSERT_NE(handoff, nullptr);
  Peer old(rig, 5000);
  const LostConnection lost{{kTheirs, kOurs, 5000, kPort}, {mac_of(1), mac_of(8), 0, 0}, kTheirs};
  const LostConnection gone{{kTheirs, kOurs, 5001, kPort}, {mac_of(1), mac_of(8), 0, 0}, kTheirs};
  const auto board = std::make_shared<ResetBoard>(2);
  rig.cores[0]->request_reset_mode({.lost = {lost, gone}, .board = board, .refuses_all = false});
  rig.run(1);
  auto heard = old.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_EQ(heard[0].flags, tcp_flag::syn | tcp_flag::ack);
  old.heard_to = SeqNum{0x1234'5678};
  old.send(tcp_flag::ack);
  rig.run(1);
  heard = old.hears();
  ASSERT_GE(heard.size(), 1U);
  EXPECT_TRUE(heard.back().has(tcp_flag::rst));
  EXPECT_EQ(heard.back().seq, (SeqNum{0x1234'5678}));
  EXPECT_EQ(board->state(0), ResetBoard::State::reset_sent);
  old.send(tcp_flag::rst);
  rig.run(1);
  EXPECT_EQ(board->state(0), ResetBoard::State::closed);
  EXPECT_FALSE(board->all_closed());
  // A new source from the same port as the other one.
  Peer successor(rig, 5001);
  static_cast<void>(successor.hears());  // the probe for its predecessor
  ASSERT_NE(successor.connect(), nullptr);
  EXPECT_TRUE(board->all_closed());
  living.data("goes on");
  rig.run();
  EXPECT_EQ(testing::drain(*handoff), "goes on");
  // Over, too: then the second request refuses all.
  const auto last = std::make_shared<ResetBoard>(1);
  rig.cores[0]->request_reset_mode({.lost = {lost}, .board = last});
  static_cast<void>(living.hears());
  rig.run();
  heard = living.hears();
  ASSERT_GE(heard.size(), 1U);
  EXPECT_TRUE(heard.back().has(tcp_flag::rst));
}

TEST(PollCoreReset, the_predecessors_other_address_is_answered_for_until_nobody_uses_it) {
  Rig rig;
  const Ipv4Address before{kOurs.value + 9};
  const LostConnection lost{{kTheirs, before, 5000, kPort}, {mac_of(1), mac_of(8), 0, 0}, kTheirs};
  rig.cores[0]->request_reset_mode({.lost = {lost}, .refuses_all = false});
  rig.run(1);
  ArpPacket question;
  ASSERT_GE(rig.queues[0]->sent.size(), 1U);
  ASSERT_TRUE(parse_arp(rig.queues[0]->sent[0], question));
  EXPECT_EQ(question.sender_ip, before);
  rig.queues[0]->sent.clear();
  const auto ask = [&](Ipv4Address whom) {
    testing::MemoryQueue::Packet request(kArpFrameBytesMax);
    request.resize(build_arp(arp_request_for(mac_of(1), kTheirs, whom), request));
    rig.queues[0]->arrive(request);
    rig.run(1);
    const std::size_t answers = rig.queues[0]->sent.size();
    rig.queues[0]->sent.clear();
    return answers;
  };
  EXPECT_EQ(ask(before), 1U);
  EXPECT_EQ(ask({kOurs.value + 10}), 0U);
  Peer old(rig, 5000);
  old.header().tuple.remote_ip = before;
  old.send(tcp_flag::ack);
  rig.run(1);
  EXPECT_EQ(rig.queues[0]->sent.size(), 1U);
  EXPECT_EQ(rig.count(PollCounter::resets_in_reset_mode), 1U);
  old.send(tcp_flag::rst);
  rig.run(1);
  rig.queues[0]->sent.clear();
  EXPECT_EQ(ask(before), 0U);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

// More channels than fit into a port's queue at once.
TEST(PollCoreReset, two_hundred_silent_channels_are_asked_a_few_at_a_time) {
  Rig rig;
  ResetModeConfig config;
  for (uint16_t i = 0; i < 200; ++i)
    config.lost.push_back(
        {{kTheirs, kOurs, static_cast<uint16_t>(5000 + i), kPort}, {mac_of(1), {}, 0, 0}, kTheirs});
  rig.cores[0]->request_reset_mode(config);
  std::size_t sent = 0;
  for (uint32_t turn = 0; turn < 13; ++turn) {
    rig.queues[0]->sent.clear();
    rig.run(1);
    EXPECT_LE(rig.queues[0]->sent.size(), 16U);
    sent += rig.queues[0]->sent.size();
  }
  EXPECT_EQ(sent, 201U);  // and one ARP request
  EXPECT_EQ(rig.count(PollCounter::tx_dropped), 0U);
}

}  // namespace
}  // namespace migrx

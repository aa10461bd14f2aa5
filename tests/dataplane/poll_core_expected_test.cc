// Segments whose headers equal the last one's go a short way: nobody may notice, and it must not be taken
// when anything says otherwise.
#include <gtest/gtest.h>

#include "tests/dataplane/poll_core_rig.h"

namespace migrx::testing {
namespace {

constexpr ChecksumState kGood = ChecksumState::good;

struct Expected : ::testing::Test {
  Rig rig;
  // SYN, SYN-ACK, ACK with timestamps.
  Handoff* connect(Peer& peer) {
    peer.header().ts_val = 1;
    peer.send(tcp_flag::syn, {}, tcp_option::mss | tcp_option::timestamps);
    rig.run();
    EXPECT_EQ(peer.hears().size(), 1U);
    peer.send(tcp_flag::ack, {}, tcp_option::timestamps);
    rig.run();
    return rig.cores[0]->take_accepted();
  }
  void arrive(Peer& peer, std::string_view payload, uint8_t flags = tcp_flag::ack, ChecksumState l4 = kGood) {
    rig.queues[0]->arrive(peer.frame(flags, payload, tcp_option::timestamps), kGood, l4);
    peer.advance(flags, payload.size());
  }
  uint64_t in_order() const { return rig.cores[0]->tcp_counters().read(TcpCounter::in_order); }
};

TEST_F(Expected, runs_of_two_connections_arrive_whole_and_are_counted) {
  Peer one(rig, 1000), two(rig, 1001);
  Handoff* const first = connect(one);
  Handoff* const second = connect(two);
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  const uint64_t ok = rig.count(WireCounter::segment_ok);
  for (uint32_t round = 0; round < 3; ++round) {
    for (const char* piece : {"aa", "bbb", "c"}) arrive(one, piece);
    for (const char* piece : {"dd", "eee", "f"}) arrive(two, piece);
  }
  rig.run();
  EXPECT_EQ(drain(*first), "aabbbcaabbbcaabbbc");
  EXPECT_EQ(drain(*second), "ddeeefddeeefddeeef");
  EXPECT_EQ(in_order(), 18U);
  EXPECT_EQ(rig.count(WireCounter::segment_ok) - ok, 18U);
  for (Peer* const peer : {&one, &two}) {
    const auto heard = peer->hears();
    ASSERT_FALSE(heard.empty());
    EXPECT_EQ(heard.back().ack, peer->next);
  }
  rig.run();
  EXPECT_EQ(rig.buffers_out(), 0U);
}

TEST_F(Expected, a_damaged_segment_is_not_taken_however_familiar) {
  Peer peer(rig, 1000);
  Handoff* const handoff = connect(peer);
  ASSERT_NE(handoff, nullptr);
  arrive(peer, "sound");
  const SeqNum again = peer.next;
  arrive(peer, "harm!", tcp_flag::ack, ChecksumState::bad);
  peer.next = again;
  arrive(peer, "fine!");
  rig.run();
  EXPECT_EQ(drain(*handoff), "soundfine!");
  EXPECT_EQ(rig.count(WireCounter::tcp_checksum_bad), 1U);
}

TEST_F(Expected, a_hole_a_repetition_and_a_fin_go_the_long_way) {
  Peer peer(rig, 1000);
  Handoff* const handoff = connect(peer);
  ASSERT_NE(handoff, nullptr);
  arrive(peer, "one ");
  const SeqNum hole = peer.next;
  peer.next = hole + 4;
  arrive(peer, "three ");
  const SeqNum end = peer.next;
  peer.next = hole;
  arrive(peer, "two ");
  peer.next = hole;
  arrive(peer, "two ");
  peer.next = end;
  arrive(peer, "four");
  arrive(peer, "", tcp_flag::ack | tcp_flag::fin);
  rig.run();
  StreamEnd how = StreamEnd::none;
  EXPECT_EQ(drain(*handoff, &how), "one two three four");
  EXPECT_EQ(how, StreamEnd::fin);
  EXPECT_EQ(rig.cores[0]->tcp_counters().read(TcpCounter::duplicate), 1U);
}

// The slot of the connection that was learnt from is free again, or another's.
TEST_F(Expected, nothing_is_taken_for_a_connection_that_is_gone) {
  Peer peer(rig, 1000);
  Handoff* const handoff = connect(peer);
  ASSERT_NE(handoff, nullptr);
  arrive(peer, "before");
  rig.run();
  ASSERT_TRUE(handoff->abort());
  rig.run();
  peer.hears();
  arrive(peer, "behind");
  rig.run();
  const auto heard = peer.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));
  EXPECT_EQ(drain(*handoff), "before");
}

// A source that moved to another interface is answered there.
TEST_F(Expected, a_changed_link_address_is_noticed) {
  Peer peer(rig, 1000);
  Handoff* const handoff = connect(peer);
  ASSERT_NE(handoff, nullptr);
  arrive(peer, "here");
  rig.run();
  peer.hears();
  peer.header().link.local_mac = mac_of(9);
  arrive(peer, "there", tcp_flag::ack | tcp_flag::psh);
  rig.pass(100'000'000);
  EXPECT_EQ(drain(*handoff), "herethere");
  ASSERT_FALSE(rig.queues[0]->sent.empty());
  const MemoryQueue::Packet& answer = rig.queues[0]->sent.back();
  TcpSegment segment;
  ASSERT_EQ(parse_segment(answer, static_cast<uint32_t>(answer.size()), segment), WireCounter::segment_ok);
  EXPECT_EQ(segment.link.local_mac, mac_of(9));
}

}  // namespace
}  // namespace migrx::testing

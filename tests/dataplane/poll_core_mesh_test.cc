// Several poll cores, and frames that arrive on the wrong one's queue.
#include <gtest/gtest.h>

#include <random>

#include "tests/dataplane/poll_core_rig.h"

namespace migrx {
namespace {

using testing::drain;
using testing::MemoryQueue;
using testing::Peer;
using testing::Rig;

TEST(PollCoreMesh, data_on_another_queue_reaches_its_connection) {
  Rig rig({.cores = 2});
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect(0);
  ASSERT_NE(handoff, nullptr);
  EXPECT_EQ(handoff->poll_core, 0U);
  rig.queues[1]->arrive(peer.frame(tcp_flag::ack, "stray"));
  peer.advance(tcp_flag::ack, 5);
  rig.run();
  EXPECT_EQ(drain(*handoff), "stray");
  EXPECT_EQ(rig.count(PollCounter::frames_forwarded, 1), 1U);
  EXPECT_EQ(rig.count(PollCounter::frames_adopted, 0), 1U);
  // It waited in the owner's own buffers; the other core's pool was whole again at once.
  EXPECT_EQ(rig.buffers_out(1), 0U);
  rig.run();
  EXPECT_EQ(rig.buffers_out(0), 0U);
  const auto heard = peer.hears();
  ASSERT_FALSE(heard.empty());
  EXPECT_EQ(heard.back().ack, peer.next);
}

TEST(PollCoreMesh, a_handshake_may_end_on_another_queue_than_it_began) {
  Rig rig({.cores = 3});
  Peer peer(rig, 1000);
  peer.send(tcp_flag::syn, {}, tcp_option::mss);
  rig.run();
  ASSERT_EQ(peer.hears().size(), 1U);
  rig.queues[2]->arrive(peer.frame(tcp_flag::ack));
  rig.run();
  EXPECT_EQ(rig.cores[2]->take_accepted(), nullptr);
  EXPECT_NE(rig.cores[0]->take_accepted(), nullptr);
  EXPECT_TRUE(peer.hears().empty());  // no RST
}

TEST(PollCoreMesh, only_a_tuple_nobody_owns_is_reset) {
  Rig rig({.cores = 2});
  Peer owned(rig, 1000);
  ASSERT_NE(owned.connect(0), nullptr);
  Peer stranger(rig, 1001);
  rig.queues[1]->arrive(stranger.frame(tcp_flag::ack, "x"));
  rig.queues[1]->arrive(owned.frame(tcp_flag::ack, "y"));
  rig.run();
  const auto reset = stranger.hears();
  ASSERT_EQ(reset.size(), 1U);
  EXPECT_TRUE(reset[0].has(tcp_flag::rst));
  owned.advance(tcp_flag::ack, 1);
  for (const TcpSegment& segment : owned.hears()) EXPECT_FALSE(segment.has(tcp_flag::rst));
}

TEST(PollCoreMesh, a_tuple_that_has_ended_belongs_to_nobody) {
  Rig rig({.cores = 2});
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect(0);
  ASSERT_NE(handoff, nullptr);
  ASSERT_TRUE(handoff->abort());
  rig.run();
  static_cast<void>(peer.hears());
  rig.queues[1]->arrive(peer.frame(tcp_flag::ack, "late"));
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::frames_forwarded, 1), 0U);
  const auto heard = peer.hears();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_TRUE(heard[0].has(tcp_flag::rst));
}

// The owner does not run: its ring fills, the rest is dropped and counted, and no buffer is lost.
TEST(PollCoreMesh, a_full_ring_drops_and_counts) {
  Rig rig({.cores = 2, .handoff_slots = 255});
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect(0);
  ASSERT_NE(handoff, nullptr);
  std::vector<MemoryQueue::Packet> packets;
  for (uint32_t i = 0; i < PollMesh::kRingFrames + 10; ++i) {
    packets.push_back(peer.frame(tcp_flag::ack, "abc"));
    peer.advance(tcp_flag::ack, 3);
    rig.queues[1]->arrive(packets.back());
  }
  for (uint32_t i = 0; i < 10; ++i) rig.cores[1]->do_work(rig.now_ns);
  EXPECT_EQ(rig.count(PollCounter::forward_dropped, 1), 10U);
  EXPECT_EQ(rig.buffers_out(1), PollMesh::kRingFrames);
  rig.run(10);
  EXPECT_EQ(rig.buffers_out(1), 0U);
  EXPECT_EQ(drain(*handoff).size(), PollMesh::kRingFrames * 3U);
  for (const MemoryQueue::Packet& packet : packets) rig.queues[0]->arrive(packet);
  rig.run(10);
  EXPECT_EQ(drain(*handoff).size(), 30U);
  rig.run();
  EXPECT_EQ(rig.buffers_out(0), 0U);
}

// Each frame of several flows comes in on any queue: every byte arrives, in order, and every buffer goes
// home.
TEST(PollCoreMesh, flows_sprayed_over_all_queues_lose_nothing) {
  constexpr uint32_t kCores = 3;
  Rig rig({.cores = kCores});
  std::minstd_rand random(7);
  std::vector<std::unique_ptr<Peer>> peers;
  std::vector<Handoff*> handoffs;
  std::vector<std::string> sent(6);
  std::vector<std::string> got(6);
  for (uint32_t i = 0; i < 6; ++i) {
    peers.push_back(std::make_unique<Peer>(rig, static_cast<uint16_t>(1000 + i), i % kCores));
    handoffs.push_back(peers[i]->connect(i % kCores));
    ASSERT_NE(handoffs[i], nullptr);
  }
  for (uint32_t step = 0; step < 2000; ++step) {
    const uint32_t flow = static_cast<uint32_t>(random() % 6);
    const std::string payload(1 + random() % 700, static_cast<char>('a' + step % 26));
    rig.queues[random() % kCores]->arrive(peers[flow]->frame(tcp_flag::ack, payload));
    peers[flow]->advance(tcp_flag::ack, payload.size());
    sent[flow] += payload;
    if (step % 8 == 7) {
      rig.run();
      for (uint32_t i = 0; i < 6; ++i) got[i] += drain(*handoffs[i]);
    }
  }
  rig.run(10);
  for (uint32_t i = 0; i < 6; ++i) {
    got[i] += drain(*handoffs[i]);
    EXPECT_EQ(got[i], sent[i]) << "flow " << i;
  }
  rig.run(10);
  for (uint32_t core = 0; core < kCores; ++core) EXPECT_EQ(rig.buffers_out(core), 0U);
}

}  // namespace
}  // namespace migrx

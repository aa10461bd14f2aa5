// Hostile peers beside honest ones on one poll core: packet buffers stay within what was reserved, and the
// honest connections keep their rate. The measure is bytes delivered per turn of the core, a turn being what
// it takes to serve one burst, so the result is the same on every machine.
//
// The load: 24 frames per turn from four honest senders, 8 from whoever is hostile, at a core that takes 32.
#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <random>

#include "tests/dataplane/poll_core_rig.h"

namespace migrx {
namespace {

using testing::kOurs;
using testing::mac_of;
using testing::MemoryQueue;
using testing::Peer;
using testing::Rig;

constexpr uint32_t kSlots = 63;
constexpr uint32_t kHonest = 4;
constexpr uint32_t kHostile = 4;
constexpr uint32_t kHonestFrames = 6;   // each, per turn
constexpr uint32_t kHostileFrames = 8;  // all, per turn
constexpr uint32_t kRing = 256;         // frames that wait at the port at most
constexpr uint32_t kTurns = 3000;
constexpr uint32_t kSegment = 1448;
// What dataplane/dpdk/pool.h asks for, without what only a device keeps: nobody can take the rest.
constexpr uint32_t kBuffers = (kHonest + kHostile) * kSlots + kBurst;
constexpr uint16_t kFirstHostilePort = 2000;

class Starvation : public ::testing::Test {
 protected:
  struct Sender {
    std::unique_ptr<Peer> peer;
    Handoff* handoff = nullptr;
    SeqNum acked;
    SeqNum edge;
    uint64_t delivered = 0;
    uint32_t turns_stuck = 0;
  };

  void SetUp() override {
    rig_ = std::make_unique<Rig>(testing::RigOptions{
        .buffers = kBuffers, .connections_max = kHonest + kHostile, .handoff_slots = kSlots});
    for (uint32_t i = 0; i < kHonest; ++i) honest_.push_back(connect(static_cast<uint16_t>(1000 + i)));
  }
  void TearDown() override {
    for (auto* senders : {&honest_, &hostile_})
      for (Sender& sender : *senders) {
        sender.handoff->detach();
        sender.handoff->retire();
      }
    rig_->stop();
    EXPECT_EQ(rig_->buffers_out(), 0U);
  }

  Sender connect(uint16_t port) {
    Sender sender;
    sender.peer = std::make_unique<Peer>(*rig_, port);
    sender.handoff = sender.peer->connect();
    EXPECT_NE(sender.handoff, nullptr);
    sender.acked = sender.edge = sender.peer->next;
    sender.edge += 20 * kSegment;
    return sender;
  }
  void connect_hostile() {
    for (uint32_t i = 0; i < kHostile; ++i)
      hostile_.push_back(connect(static_cast<uint16_t>(kFirstHostilePort + i)));
  }

  // Bytes per turn of all honest senders. `attack` is called each turn; hostile streams are read or not.
  double rate(const std::function<void(uint32_t turn)>& attack = nullptr, bool read_hostile = true) {
    uint64_t before = 0;
    for (const Sender& sender : honest_) before += sender.delivered;
    for (uint32_t turn = 0; turn < kTurns; ++turn) {
      // Alternately first, so that neither always finds the ring full.
      if (turn % 2 == 0) offer();
      if (attack) attack(turn);
      if (turn % 2 != 0) offer();
      rig_->run(1);
      for (Sender& sender : honest_) sender.delivered += read(*sender.handoff);
      if (read_hostile)
        for (Sender& sender : hostile_) read(*sender.handoff);
      hear();
      most_out_ = std::max(most_out_, rig_->buffers_out());
    }
    uint64_t after = 0;
    for (const Sender& sender : honest_) after += sender.delivered;
    return static_cast<double>(after - before) / kTurns;
  }
  // Runs alone, then beside `attack`: the honest keep four fifths, and never lack a packet buffer.
  void expect_unharmed(const std::function<void(uint32_t turn)>& attack, bool read_hostile = true) {
    const double alone = rate();
    EXPECT_DOUBLE_EQ(alone, double{kHonest} * kHonestFrames * kSegment);
    const double beside = rate(attack, read_hostile);
    EXPECT_GE(beside, 0.8 * alone);
    EXPECT_EQ(rig_->queues[0]->dropped_no_buffer, 0U);
    EXPECT_LE(most_out_, kBuffers - kBurst) << "more than is reserved";
    std::printf(
        "honest connections keep %.1f %% of %.0f bytes per turn; %u of %u packet buffers out at most\n",
        100 * beside / alone, alone, most_out_, kBuffers);
  }

  void arrive(MemoryQueue::Packet packet) {
    if (rig_->queues[0]->waiting() < kRing) rig_->queues[0]->arrive(std::move(packet));
  }
  [[nodiscard]] uint64_t count(TcpCounter which) const { return rig_->cores[0]->tcp_counters().read(which); }

  std::unique_ptr<Rig> rig_;
  std::vector<Sender> honest_;
  std::vector<Sender> hostile_;
  std::mt19937 random_{1};
  const std::string text_ = std::string(kSegment, 'h');

 private:
  void offer() {
    for (Sender& sender : honest_) {
      if (++sender.turns_stuck > 200) {  // what was lost is sent again
        sender.peer->next = sender.acked;
        sender.turns_stuck = 0;
      }
      for (uint32_t i = 0; i < kHonestFrames && sender.peer->next + kSegment <= sender.edge; ++i) {
        arrive(sender.peer->frame(tcp_flag::ack, text_));
        sender.peer->advance(tcp_flag::ack, kSegment);
      }
    }
  }
  static uint64_t read(Handoff& handoff) {
    uint64_t bytes = 0;
    const std::span<const Slice> slices = handoff.readable();
    for (const Slice& slice : slices) bytes += slice.length;
    handoff.advance(static_cast<uint32_t>(slices.size()));
    handoff.release(static_cast<uint32_t>(slices.size()));
    return bytes;
  }
  void hear() {
    for (const MemoryQueue::Packet& packet : rig_->queues[0]->sent) {
      TcpSegment segment;
      if (parse_segment(packet, static_cast<uint32_t>(packet.size()), segment) != WireCounter::segment_ok)
        continue;
      for (auto* senders : {&honest_, &hostile_})
        for (Sender& sender : *senders) {
          if (sender.peer->header().tuple.local_port != segment.tuple.local_port) continue;
          EXPECT_FALSE(senders == &honest_ && segment.has(tcp_flag::rst)) << "an honest connection was reset";
          if (sender.acked < segment.ack) {
            sender.acked = segment.ack;
            sender.turns_stuck = 0;
          }
          sender.edge = segment.ack + segment.window;
          sender.peer->heard_to = segment.seq + segment.length();
        }
    }
    rig_->queues[0]->sent.clear();
  }
  uint32_t most_out_ = 0;
};

TEST_F(Starvation, segments_of_one_byte) {
  connect_hostile();
  expect_unharmed([&](uint32_t) {
    for (uint32_t i = 0; i < kHostileFrames; ++i) {
      Peer& peer = *hostile_[i % kHostile].peer;
      arrive(peer.frame(tcp_flag::ack, "t"));
      peer.advance(tcp_flag::ack, 1);
    }
  });
}

// A channel that never reaches its SYNC, or whose destination does not read: nobody takes its bytes.
TEST_F(Starvation, streams_that_nobody_can_go_on_with) {
  connect_hostile();
  expect_unharmed(
      [&](uint32_t turn) {
        for (uint32_t i = 0; i < kHostileFrames; ++i) {
          Sender& sender = hostile_[i % kHostile];
          if (turn % 64 == 0) sender.peer->next = sender.acked;  // sent again for ever
          arrive(sender.peer->frame(tcp_flag::ack, turn % 3 == 0 ? "t" : text_));
          sender.peer->advance(tcp_flag::ack, turn % 3 == 0 ? 1 : kSegment);
        }
      },
      false);
  for (const Sender& sender : hostile_) EXPECT_LE(sender.handoff->held(), kSlots);
  EXPECT_GT(count(TcpCounter::zero_window_probe) + count(TcpCounter::outside_window) +
                count(TcpCounter::over_quota),
            100U);
}

TEST_F(Starvation, holes_that_are_never_filled) {
  connect_hostile();
  expect_unharmed([&](uint32_t turn) {
    for (uint32_t i = 0; i < kHostileFrames; ++i) {
      Peer& peer = *hostile_[i % kHostile].peer;
      const SeqNum begin = peer.next;
      peer.next += 1 + 2 * ((turn * 2 + i / kHostile) % 20'000);
      arrive(peer.frame(tcp_flag::ack, "o"));
      peer.next = begin;
    }
  });
  EXPECT_GT(count(TcpCounter::out_of_order), kHostile * 20U);
  EXPECT_GT(count(TcpCounter::over_quota), 100U);
}

// What we have to say goes out byte by byte, and each is acknowledged at once.
TEST_F(Starvation, windows_of_one_byte) {
  connect_hostile();
  for (Sender& sender : hostile_) sender.peer->header().window = 1;
  const std::vector<std::byte> message(60, std::byte{7});
  expect_unharmed([&](uint32_t) {
    for (uint32_t i = 0; i < kHostileFrames; ++i) {
      Sender& sender = hostile_[i % kHostile];
      static_cast<void>(sender.handoff->send(message));
      arrive(sender.peer->frame(tcp_flag::ack));
    }
  });
}

TEST_F(Starvation, a_flood_of_syns) {
  expect_unharmed([&](uint32_t) {
    for (uint32_t i = 0; i < kHostileFrames; ++i) {
      OutSegment syn;
      syn.tuple = {kOurs,
                   {0x0a4d0000 + static_cast<uint32_t>(random_() % 65536)},
                   testing::kPort,
                   static_cast<uint16_t>(3000 + random_() % 60'000)};
      syn.link = {mac_of(2), mac_of(1), 0, 0};
      syn.seq = SeqNum{static_cast<uint32_t>(random_())};
      syn.flags = tcp_flag::syn;
      MemoryQueue::Packet packet(kHeaderBytesMax);
      packet.resize(build_segment(syn, packet, TxChecksum::full));
      arrive(std::move(packet));
    }
  });
  EXPECT_LE(count(TcpCounter::syn), ListenerConfig{}.syn_table_entries + kHonest);
  EXPECT_GT(count(TcpCounter::syn_cookie_sent), 20'000U);
}

TEST_F(Starvation, connections_that_are_silent) {
  connect_hostile();
  expect_unharmed([](uint32_t) {});
}

TEST_F(Starvation, forged_segments_for_the_honest_connections) {
  expect_unharmed([&](uint32_t turn) {
    for (uint32_t i = 0; i < kHostileFrames; ++i) {
      Peer& peer = *honest_[i % kHonest].peer;
      const SeqNum next = peer.next;
      const SeqNum heard = peer.heard_to;
      uint8_t flags = tcp_flag::ack;
      switch (turn % 5) {
        case 0:
          flags = tcp_flag::rst;
          peer.next += 20'001;
          break;
        case 1:
          flags = tcp_flag::syn;
          break;
        case 2:
          peer.heard_to += 1'000'000;  // an ACK of what was never sent
          break;
        case 3:
          peer.next += 1U << 30;
          break;
        case 4:
          peer.next = next - 100'000;
          break;
      }
      arrive(peer.frame(flags, flags == tcp_flag::ack ? "forged" : ""));
      peer.next = next;
      peer.heard_to = heard;
    }
  });
  // Per connection and second of virtual time; the run takes 6 ms.
  EXPECT_LE(count(TcpCounter::challenge_acks_sent), kHonest * TcpConfig{}.challenge_acks_per_second);
  EXPECT_GT(count(TcpCounter::challenge_acks_limited), 1000U);
}

TEST_F(Starvation, damaged_segments) {
  expect_unharmed([&](uint32_t) {
    for (uint32_t i = 0; i < kHostileFrames; ++i) {
      MemoryQueue::Packet packet = honest_[i % kHonest].peer->frame(tcp_flag::ack, text_);
      packet[60 + random_() % 1000] ^= std::byte{1};
      arrive(std::move(packet));
    }
  });
}

// Connect, speak, reset, and again: places come back, and the honest ones do not notice.
TEST_F(Starvation, connections_that_come_and_go) {
  std::vector<Sender> gone;
  expect_unharmed([&](uint32_t turn) {
    if (turn % 20 != 0) return;
    if (turn % 40 == 0) {
      hostile_.push_back(connect(static_cast<uint16_t>(kFirstHostilePort + turn)));
    } else {
      Sender& last = hostile_.back();
      last.peer->send(tcp_flag::rst);
      last.handoff->detach();
      last.handoff->retire();
      hostile_.pop_back();
    }
  });
  EXPECT_EQ(count(TcpCounter::rst), kTurns / 40);
  EXPECT_EQ(rig_->cores[0]->connections(), kHonest);
}

}  // namespace
}  // namespace migrx

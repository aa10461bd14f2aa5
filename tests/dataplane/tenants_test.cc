// Tenants of the listener: several migrations on one poll core, each with a port and places of its own.
#include "dataplane/tenants.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/dataplane/poll_core_rig.h"

namespace migrx::testing {
namespace {

constexpr uint16_t kSecondPort = 5555;

struct TenantsTest : ::testing::Test {
  explicit TenantsTest(const RigOptions& options = {.connections_max = 8}) : rig(options) {}

  // A peer that talks to another port than kPort.
  static void point_at(Peer& peer, uint16_t port) { peer.header().tuple.remote_port = port; }

  // What it heard on `port`: flags of each segment.
  std::vector<uint8_t> heard_from(uint16_t port, uint16_t peer_port) {
    std::vector<uint8_t> flags;
    for (auto& queue : rig.queues)
      for (const MemoryQueue::Packet& packet : queue->sent) {
        TcpSegment segment;
        if (parse_segment(packet, static_cast<uint32_t>(packet.size()), segment) == WireCounter::segment_ok &&
            segment.tuple.remote_port == port && segment.tuple.local_port == peer_port)
          flags.push_back(segment.flags);
      }
    return flags;
  }
  // Its connection ends, and everybody lets go of it.
  void end(Peer& peer, Handoff& handoff) {
    peer.send(tcp_flag::rst | tcp_flag::ack);
    rig.run();
    handoff.detach();
    handoff.retire();
    rig.run();
  }

  Rig rig;
};

TEST_F(TenantsTest, each_connection_knows_whose_it_is) {
  Tenant* const second = rig.tenants.open({.port = kSecondPort});
  ASSERT_NE(second, nullptr);
  Peer one(rig, 1000);
  Handoff* const first = one.connect();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->tenant, rig.tenant->id());
  Peer other(rig, 1000);  // the same 4-tuple but for our port
  point_at(other, kSecondPort);
  other.send(tcp_flag::syn);
  rig.run();
  EXPECT_EQ(heard_from(kSecondPort, 1000), std::vector<uint8_t>{tcp_flag::syn | tcp_flag::ack});
  EXPECT_EQ(second->places(0), 0U);
  EXPECT_EQ(rig.tenant->places(0), 1U);
}

TEST_F(TenantsTest, a_port_without_a_tenant_is_closed) {
  Peer nobody(rig, 1000);
  point_at(nobody, kSecondPort);
  nobody.send(tcp_flag::syn);
  rig.run();
  EXPECT_EQ(heard_from(kSecondPort, 1000), std::vector<uint8_t>{tcp_flag::rst | tcp_flag::ack});
}

TEST_F(TenantsTest, a_port_is_one_tenants_at_a_time) {
  EXPECT_EQ(rig.tenants.open({.port = kPort}), nullptr);
  rig.tenants.close(*rig.tenant);
  Tenant* const next = rig.tenants.open({.port = kPort});
  ASSERT_NE(next, nullptr);
  rig.run();
  EXPECT_EQ(next->state(0), Tenant::State::listening);
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  EXPECT_EQ(handoff->tenant, next->id());
}

TEST_F(TenantsTest, closing_one_leaves_the_others_alone) {
  Tenant* const second = rig.tenants.open({.port = kSecondPort});
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  Peer half(rig, 1001);  // half open, with the tenant that stays
  half.send(tcp_flag::syn);
  rig.run();
  (void)half.hears();
  rig.tenants.close(*second);
  rig.run();
  EXPECT_TRUE(half.hears().empty()) << "a handshake of another tenant was touched";
  peer.data("on");
  rig.run();
  EXPECT_EQ(drain(*handoff), "on");
  EXPECT_EQ(second->state(0), Tenant::State::gone);
}

// The places are the lease: until the last buffer is home nobody else may be promised them.
TEST_F(TenantsTest, a_closed_tenant_is_gone_with_its_last_connection) {
  Peer peer(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  rig.tenants.close(*rig.tenant);
  rig.run();
  EXPECT_EQ(rig.tenant->state(0), Tenant::State::closed);
  EXPECT_EQ(rig.tenants.places_promised(), 1U);
  end(peer, *handoff);
  EXPECT_EQ(rig.tenant->state(0), Tenant::State::gone);
  EXPECT_EQ(rig.tenants.places_promised(), 0U);
  rig.tenants.collect();
  EXPECT_EQ(rig.tenants.size(), 0U);
}

TEST_F(TenantsTest, a_tenant_that_never_listened_goes_too) {
  Tenant* const second = rig.tenants.open({.port = kSecondPort});
  rig.tenants.close(*second);  // before any turn
  rig.run();
  EXPECT_EQ(second->state(0), Tenant::State::gone);
  EXPECT_TRUE(heard_from(kSecondPort, 1000).empty());
}

TEST_F(TenantsTest, no_tenant_takes_more_than_its_places) {
  Tenant* const second = rig.tenants.open({.port = kSecondPort, .places_max = 1});
  Peer first(rig, 1000), late(rig, 1001);
  for (Peer* const peer : {&first, &late}) {
    point_at(*peer, kSecondPort);
    peer->send(tcp_flag::syn);
    rig.run();
    for (auto& queue : rig.queues) {
      for (const MemoryQueue::Packet& packet : queue->sent) {
        TcpSegment segment;
        ASSERT_EQ(parse_segment(packet, static_cast<uint32_t>(packet.size()), segment),
                  WireCounter::segment_ok);
        peer->heard_to = segment.seq + segment.length();
      }
      queue->sent.clear();
    }
    peer->send(tcp_flag::ack);
    rig.run();
  }
  EXPECT_EQ(second->places(0), 1U);
  EXPECT_EQ(rig.cores[0]->tcp_counters().read(TcpCounter::syn_refused_limit), 1U);
  Peer other(rig, 1002);
  EXPECT_NE(other.connect(), nullptr) << "a tenant's full house is no other tenant's";
}

TEST_F(TenantsTest, promises_are_all_of_an_open_tenant_and_what_a_closed_one_still_has) {
  rig.tenants.close(*rig.tenant);
  rig.run();
  Tenant* const a = rig.tenants.open({.port = 1, .places_max = 3});
  Tenant* const b = rig.tenants.open({.port = 2, .places_max = 4});
  EXPECT_EQ(rig.tenants.places_promised(), 7U);
  rig.tenants.close(*a);
  rig.run();
  EXPECT_EQ(rig.tenants.places_promised(), 4U);
  rig.tenants.close(*b);
  rig.run();
  EXPECT_EQ(rig.tenants.places_promised(), 0U);
}

struct TenantsOfTwoCores : TenantsTest {
  TenantsOfTwoCores() : TenantsTest({.cores = 2, .connections_max = 8}) {}
};

TEST_F(TenantsOfTwoCores, go_with_the_last_core) {
  rig.tenants.close(*rig.tenant);
  rig.cores[0]->do_work(rig.now_ns);
  EXPECT_EQ(rig.tenant->state(0), Tenant::State::gone);
  rig.tenants.collect();
  EXPECT_EQ(rig.tenants.size(), 1U) << "the other core still looks at it";
  rig.cores[1]->do_work(rig.now_ns);
  rig.tenants.collect();
  EXPECT_EQ(rig.tenants.size(), 0U);
}

TEST_F(TenantsTest, silent_peers_are_told_of_one_tenant_only) {
  Tenant* const second = rig.tenants.open({.port = kSecondPort});
  const std::unique_ptr<SilentPeers> first_peers = rig.tenants.silent_peers(*rig.tenant);
  const std::unique_ptr<SilentPeers> second_peers = rig.tenants.silent_peers(*second);
  first_peers->ask();
  second_peers->ask();
  rig.run(1);
  EXPECT_EQ(first_peers->oldest_ns(), kNever);
  EXPECT_EQ(second_peers->oldest_ns(), kNever);
  first_peers->ask();
  EXPECT_EQ(second_peers->oldest_ns(), kNever) << "another tenant's question";
}

// However tenants come and go, places and states agree with a naive count.
TEST_F(TenantsTest, random_lives_leave_nothing_behind) {
  uint32_t seed = 12345;
  const auto random = [&seed](uint32_t below) {
    seed = seed * 1'664'525U + 1'013'904'223U;
    return (seed >> 16) % below;
  };
  rig.tenants.close(*rig.tenant);
  std::map<uint16_t, Tenant*> open;
  for (int step = 0; step < 5000; ++step) {
    const auto port = static_cast<uint16_t>(6000 + random(8));
    if (open.contains(port)) {
      rig.tenants.close(*open[port]);
      open.erase(port);
    } else {
      Tenant* const tenant = rig.tenants.open({.port = port, .places_max = 2});
      ASSERT_NE(tenant, nullptr);
      open[port] = tenant;
    }
    if (random(3) == 0) rig.run(1);
    ASSERT_EQ(rig.tenants.places_promised(), 2 * open.size());
    for (const auto& [at, tenant] : open) ASSERT_EQ(rig.tenants.listening_on(at), tenant);
  }
  rig.run(1);
  rig.tenants.collect();
  EXPECT_EQ(rig.tenants.size(), open.size());
}

}  // namespace
}  // namespace migrx::testing

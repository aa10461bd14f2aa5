#include "dataplane/awaited_ports.h"

#include <gtest/gtest.h>

#include "tests/dataplane/poll_core_rig.h"

namespace migrx {
namespace {

using testing::kPort;
using testing::Peer;
using testing::Rig;

TEST(AwaitedPorts, each_port_by_itself) {
  AwaitedPorts ports;
  for (const uint16_t port : {uint16_t{0}, uint16_t{63}, uint16_t{64}, uint16_t{65535}}) {
    EXPECT_FALSE(ports.leave_unanswered(port));
    EXPECT_FALSE(ports.take_asked(port));
    ports.set(port, true);
    EXPECT_TRUE(ports.awaited(port));
    EXPECT_FALSE(ports.awaited(static_cast<uint16_t>(port ^ 1)));
    EXPECT_FALSE(ports.take_asked(port));
    EXPECT_TRUE(ports.leave_unanswered(port));
    EXPECT_TRUE(ports.take_asked(port));
    EXPECT_FALSE(ports.take_asked(port)) << "told once";
    ports.set(port, false);
    EXPECT_FALSE(ports.leave_unanswered(port));
    EXPECT_FALSE(ports.take_asked(port));
  }
}

// Nobody has the port yet, and somebody may.
struct Awaiting {
  Awaiting() {
    rig.tenants.close(*rig.tenant);
    rig.run();
    ports.set(kPort, true);
  }
  AwaitedPorts ports;
  Rig rig{{.awaited = &ports}};
};

// A source that is quicker than whoever opens the port for it must not hear RST.
TEST(AwaitedPorts, a_syn_to_one_is_not_answered_and_its_repetition_connects) {
  Awaiting host;
  Rig& rig = host.rig;
  Peer peer(rig, 1000);
  const SeqNum first = peer.next;
  peer.send(tcp_flag::syn, {}, tcp_option::mss);
  rig.run();
  EXPECT_TRUE(peer.hears().empty());
  EXPECT_EQ(rig.count(PollCounter::syns_unanswered), 1U);
  EXPECT_TRUE(host.ports.take_asked(kPort));
  ASSERT_NE(rig.tenants.open({.port = kPort}), nullptr);
  rig.run();
  peer.next = first;
  EXPECT_NE(peer.connect(), nullptr);
  EXPECT_EQ(rig.count(PollCounter::syns_unanswered), 1U);
}

// Only a SYN waits: whoever believes to have a connection is told at once that there is none.
TEST(AwaitedPorts, what_is_no_syn_gets_a_reset) {
  Awaiting host;
  Rig& rig = host.rig;
  Peer peer(rig, 1000);
  for (const uint8_t flags : {tcp_flag::ack, static_cast<uint8_t>(tcp_flag::syn | tcp_flag::ack)}) {
    peer.send(flags);
    rig.run();
    const auto heard = peer.hears();
    ASSERT_EQ(heard.size(), 1U);
    EXPECT_TRUE(heard[0].has(tcp_flag::rst));
  }
  EXPECT_FALSE(host.ports.take_asked(kPort));
  host.ports.set(kPort, false);
  peer.send(tcp_flag::syn, {}, tcp_option::mss);
  rig.run();
  ASSERT_EQ(peer.hears().size(), 1U);
  EXPECT_EQ(rig.buffers_out(), 0U);
}

}  // namespace
}  // namespace migrx

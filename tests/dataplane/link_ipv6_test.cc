// A poll core on IPv6: neighbour discovery, ping, and connections beside those of IPv4 on the same port.
#include <gtest/gtest.h>

#include <algorithm>

#include "dataplane/link.h"
#include "dataplane/wire/ethernet.h"
#include "dataplane/wire/mld.h"
#include "tests/dataplane/poll_core_rig.h"

namespace migrx {
namespace {

using namespace testing;

constexpr IpAddress kGateway6{0xfe80'0000'0000'0000, 1};

RigOptions both_families() {
  RigOptions options;
  options.more_addresses = {PortAddress{kOurs6, 64, kGateway6}};
  return options;
}

void arrives(Rig& rig, const NdpPacket& packet) {
  MemoryQueue::Packet frame(kNdpFrameBytesMax);
  frame.resize(build_ndp(packet, frame));
  rig.queues[0]->arrive(frame);
  rig.run();
}
std::vector<NdpPacket> discovery_sent(Rig& rig) {
  std::vector<NdpPacket> found;
  for (const auto& frame : rig.queues[0]->sent) {
    Icmp6View view;
    NdpPacket packet;
    if (parse_icmp6(frame, view) && parse_ndp(view, packet)) found.push_back(packet);
  }
  rig.queues[0]->sent.clear();
  return found;
}
Peer peer_of(Rig& rig, uint16_t port, const IpAddress& theirs = kTheirs6) {
  Peer peer(rig, port);
  peer.header().tuple = {kOurs6, theirs, kPort, port};
  return peer;
}

TEST(LinkIpv6, who_asks_for_our_address_is_answered_whoever_else_is_not) {
  Rig rig(both_families());
  arrives(rig, ndp_solicitation_for(mac_of(1), kTheirs6, kOurs6));
  std::vector<NdpPacket> sent = discovery_sent(rig);
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].target, kOurs6);
  EXPECT_EQ(sent[0].mac, mac_of(2));
  EXPECT_EQ(sent[0].link.local_mac, mac_of(1));
  EXPECT_TRUE(sent[0].solicited);
  // The neighbour makes sure that we are still there: straight to us.
  NdpPacket unicast = ndp_solicitation_for(mac_of(1), kTheirs6, kOurs6);
  unicast.destination = kOurs6;
  unicast.link.remote_mac = mac_of(2);
  arrives(rig, unicast);
  EXPECT_EQ(discovery_sent(rig).size(), 1U);
  // For somebody else; to another station; in a group's frame that does not fit its packet.
  arrives(rig, ndp_solicitation_for(mac_of(1), kTheirs6, {kOurs6.high, 7}));
  unicast.link.remote_mac = mac_of(9);
  arrives(rig, unicast);
  NdpPacket odd = ndp_solicitation_for(mac_of(1), kTheirs6, kOurs6);
  odd.link.remote_mac = kEthernetBroadcast;
  arrives(rig, odd);
  EXPECT_TRUE(discovery_sent(rig).empty());
  EXPECT_EQ(rig.count(PollCounter::neighbour_replies), 2U);
}

TEST(LinkIpv6, tags_are_minded_and_answered_in_kind) {
  RigOptions options = both_families();
  options.vlan = 7;
  Rig rig(options);
  NdpPacket question = ndp_solicitation_for(mac_of(1), kTheirs6, kOurs6);
  arrives(rig, question);
  EXPECT_TRUE(discovery_sent(rig).empty());
  question.link.tagged = 1;
  question.link.vlan_tci = 7;
  arrives(rig, question);
  const std::vector<NdpPacket> sent = discovery_sent(rig);
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].link.vlan_tci, 7);
  EXPECT_EQ(sent[0].link.tagged, 1);
}

TEST(LinkIpv6, addresses_and_groups_are_announced) {
  RigOptions options = both_families();
  options.announce = true;
  Rig rig(options);
  uint32_t reports = 0;
  uint32_t arp = 0;
  for (const auto& frame : rig.queues[0]->sent) {
    Icmp6View view;
    ArpPacket packet;
    if (parse_icmp6(frame, view) && view.type() == icmp6_type::listener_report) ++reports;
    if (parse_arp(frame, packet) && packet.sender_ip == kOurs) ++arp;
  }
  EXPECT_EQ(reports, 1U);
  EXPECT_EQ(arp, 1U);
  const std::vector<NdpPacket> sent = discovery_sent(rig);
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].kind, NdpPacket::Kind::advertisement);
  EXPECT_TRUE(sent[0].overrides);
  EXPECT_FALSE(sent[0].solicited);
  EXPECT_EQ(sent[0].target, kOurs6);
}

TEST(LinkIpv6, another_host_with_our_address_is_counted_and_contradicted_now_and_then) {
  Rig rig(both_families());
  arrives(rig, ndp_announcement_of(mac_of(9), kOurs6));
  EXPECT_EQ(rig.count(PollCounter::address_conflicts), 1U);
  EXPECT_EQ(discovery_sent(rig).size(), 1U);
  arrives(rig, ndp_announcement_of(mac_of(9), kOurs6));
  EXPECT_TRUE(discovery_sent(rig).empty());
  // It asks first, as it should: it hears of us.
  rig.pass(11 * kNsPerSecond);
  arrives(rig, ndp_solicitation_for(mac_of(9), IpAddress{}, kOurs6));
  const std::vector<NdpPacket> sent = discovery_sent(rig);
  ASSERT_GE(sent.size(), 1U);
  EXPECT_EQ(sent[0].destination, kAllNodes);
  EXPECT_EQ(rig.count(PollCounter::address_conflicts), 3U);
  // The kernel's end of a net_tap interface may have our MAC address.
  arrives(rig, ndp_announcement_of(mac_of(2), kOurs6));
  EXPECT_EQ(rig.count(PollCounter::address_conflicts), 3U);
}

TEST(LinkIpv6, a_connection_carries_bytes_beside_one_of_ipv4) {
  Rig rig(both_families());
  Peer six = peer_of(rig, 1000);
  Peer four(rig, 1000);
  six.send(tcp_flag::syn, {}, tcp_option::mss);
  rig.run();
  const std::vector<TcpSegment> answer = six.hears();
  ASSERT_EQ(answer.size(), 1U);
  EXPECT_EQ(answer[0].mss, 1440);  // 20 less than IPv4's
  six.send(tcp_flag::ack);
  rig.run();
  Handoff* const of_six = rig.cores[0]->take_accepted();
  ASSERT_NE(of_six, nullptr);
  Handoff* const of_four = four.connect();
  ASSERT_NE(of_four, nullptr);
  EXPECT_STREQ(of_six->peer.data(), "[fd00::1]:1000");
  EXPECT_STREQ(of_four->peer.data(), "10.77.0.1:1000");
  EXPECT_EQ(of_six->peer_address, kTheirs6);
  const std::string text(1000, 'x');
  std::size_t by_six = 0;
  std::size_t by_four = 0;
  for (int i = 0; i < 20; ++i) {
    six.send(tcp_flag::ack, text, tcp_option::timestamps);
    four.data("four");
    rig.run();
    by_six += drain(*of_six).size();
    by_four += drain(*of_four).size();
  }
  EXPECT_EQ(by_six, 20'000U);
  EXPECT_EQ(by_four, 80U);
  ASSERT_FALSE(six.hears().empty());
  // What we send is no larger than every link carries, whatever the peer takes (it said 8960).
  six.payload_heard.clear();
  std::size_t said = 0;
  for (const std::string word(32, 'v'); said < 3200 && of_six->send(bytes_of(word));) said += word.size();
  ASSERT_GT(said, 1448U);
  rig.run(64);
  for (const TcpSegment& s : six.hears()) EXPECT_LE(s.payload_length + 60U, kIpv6MtuMin);
  EXPECT_EQ(six.payload_heard.size(), said);
  EXPECT_EQ(rig.count(WireCounter::tcp_checksum_bad), 0U);
}

TEST(LinkIpv6, a_peer_that_moved_is_followed_and_a_word_that_does_not_override_is_not) {
  Rig rig(both_families());
  Peer peer = peer_of(rig, 1000);
  ASSERT_NE(peer.connect(), nullptr);
  NdpPacket word = ndp_announcement_of(mac_of(5), kTheirs6);
  word.overrides = false;
  arrives(rig, word);
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 0U);
  word.overrides = true;
  word.has_mac = false;  // nobody asked, and it does not say where
  arrives(rig, word);
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 0U);
  arrives(rig, ndp_announcement_of(mac_of(5), kTheirs6));
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 1U);
  arrives(rig, ndp_solicitation_for(mac_of(6), kTheirs6, kOurs6));
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 2U);
  // A router that speaks of itself does not move a neighbour.
  arrives(rig, ndp_announcement_of(mac_of(7), kGateway6));
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 2U);
}

TEST(LinkIpv6, a_peer_behind_the_gateway_is_where_that_is) {
  Rig rig(both_families());
  const IpAddress far{0x2001'0db8'0000'0000, 1};
  Peer peer = peer_of(rig, 1000, far);
  ASSERT_NE(peer.connect(), nullptr);
  arrives(rig, ndp_announcement_of(mac_of(5), far));
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 0U);
  arrives(rig, ndp_announcement_of(mac_of(5), kGateway6));
  EXPECT_EQ(rig.count(PollCounter::neighbours_moved), 1U);
}

TEST(LinkIpv6, a_silent_peer_is_asked_for_in_the_name_of_our_address) {
  Rig rig(both_families());
  Peer peer = peer_of(rig, 1000);
  Handoff* const handoff = peer.connect();
  ASSERT_NE(handoff, nullptr);
  ASSERT_TRUE(handoff->send(bytes_of("verdict")));
  rig.queues[0]->sent.clear();
  for (int i = 0; i < 12; ++i) rig.pass(500 * kNsPerMs);
  EXPECT_GE(rig.count(PollCounter::neighbours_asked), 1U);
  const std::vector<NdpPacket> sent = discovery_sent(rig);
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0].kind, NdpPacket::Kind::solicitation);
  EXPECT_EQ(sent[0].target, kTheirs6);
  EXPECT_EQ(sent[0].source, kOurs6);
  EXPECT_EQ(sent[0].link.local_mac, multicast_mac(solicited_node(kTheirs6)));
}

TEST(LinkIpv6, a_host_without_ipv6_takes_none) {
  Rig rig;
  arrives(rig, ndp_solicitation_for(mac_of(1), kTheirs6, kOurs6));
  Peer peer = peer_of(rig, 1000);
  peer.send(tcp_flag::syn, {}, tcp_option::mss);
  rig.run();
  EXPECT_TRUE(rig.queues[0]->sent.empty());
  EXPECT_EQ(rig.count(WireCounter::not_our_address), 1U);
}

TEST(LinkIpv6, a_segment_from_our_own_address_is_nobodys) {
  Rig rig(both_families());
  Peer peer = peer_of(rig, 1000, kOurs6);
  peer.send(tcp_flag::syn, {}, tcp_option::mss);
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::impossible_source), 1U);
  EXPECT_TRUE(rig.queues[0]->sent.empty());
}

MemoryQueue::Packet message(uint8_t type, std::size_t length, const IpAddress& to = kOurs6) {
  MemoryQueue::Packet frame(18 + 40 + length, std::byte{0});
  const FrameAddress link{mac_of(2), mac_of(1), 0, 0};
  frame.resize(build_ethernet(link, ether_type::ipv6, frame) + 40 + length);
  build_ipv6(kTheirs6, to, ipv6_next::icmp, 64, static_cast<uint32_t>(length), frame.data() + 14);
  frame[54] = std::byte{type};
  put_icmp6_checksum(kTheirs6, to, MutableBytes{frame}.subspan(54));
  return frame;
}

TEST(LinkIpv6, pings_are_answered_and_limited) {
  Rig rig([] {
    RigOptions options = both_families();
    options.buffers = 4096;
    options.buffer_bytes = 9216;
    return options;
  }());
  rig.queues[0]->arrive(message(128, 64));
  rig.run();
  EXPECT_EQ(rig.queues[0]->sent.size(), 1U);
  rig.queues[0]->sent.clear();
  rig.queues[0]->arrive(message(128, 8960));
  rig.run();
  EXPECT_EQ(rig.queues[0]->sent.size(), 8U);
  for (const auto& frame : rig.queues[0]->sent) EXPECT_LE(frame.size(), 14U + 1280);
  rig.queues[0]->arrive(message(128, 64, {kOurs6.high, 9}));
  rig.queues[0]->arrive(message(128, 64, kAllNodes));
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::icmp_replies), 2U);
  for (uint32_t i = 0; i < Link::kEchoRepliesPerSecond + 200; ++i) {
    rig.queues[0]->arrive(message(128, 64));
    if (i % 32 == 31) rig.run(1);
  }
  rig.run(100);
  EXPECT_LE(rig.count(PollCounter::icmp_replies), Link::kEchoRepliesPerSecond + 5);
}

TEST(LinkIpv6, packet_too_big_is_counted_and_changes_nothing) {
  Rig rig(both_families());
  rig.queues[0]->arrive(message(icmp6_type::packet_too_big, 128));
  rig.queues[0]->arrive(message(icmp6_type::packet_too_big, 128, {kOurs6.high, 9}));
  rig.run();
  EXPECT_EQ(rig.count(PollCounter::packets_too_big), 1U);
  EXPECT_TRUE(rig.queues[0]->sent.empty());
}

TEST(LinkIpv6, a_core_refuses_addresses_that_no_port_may_have) {
  for (const IpAddress& bad : {IpAddress{}, kAllNodes, IpAddress{Ipv4Address{0}}, IpAddress{kOurs}}) {
    RigOptions options;
    options.ports = 2;
    Rig good(options);
    PollCoreConfig config = good.cores[0]->config();
    config.ports[1].addresses = {PortAddress{bad}};
    EXPECT_THROW(PollCore{config}, std::invalid_argument);
  }
  Rig good;
  PollCoreConfig config = good.cores[0]->config();
  config.ports[0].addresses.clear();
  EXPECT_THROW(PollCore{config}, std::invalid_argument);
}

}  // namespace
}  // namespace migrx

#include "dataplane/address_probe.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

constexpr EthernetAddress mac(uint8_t last) {
  return {{std::byte{2}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{last}}};
}
constexpr Ipv4Address kAsked{0x0a4d0002};
constexpr Ipv4Address kAskers{0x0a4d0001};
constexpr uint64_t kStart = 5'000'000'000;

std::optional<ArpPacket> arp_of(const std::optional<AddressProbe::Question>& question) {
  if (!question || !std::holds_alternative<ArpPacket>(*question)) return std::nullopt;
  return std::get<ArpPacket>(*question);
}

TEST(AddressProbe, three_questions_that_claim_nothing_then_the_address_is_ours) {
  AddressProbe probe(mac(1), kAsked, std::nullopt);
  uint64_t now = kStart;
  for (uint32_t i = 0; i < AddressProbe::kProbes; ++i, now += AddressProbe::kIntervalNs) {
    EXPECT_FALSE(probe.over(now));
    const std::optional<ArpPacket> question = arp_of(probe.poll_output(now));
    ASSERT_TRUE(question);
    EXPECT_EQ(question->operation, ArpPacket::Operation::request);
    EXPECT_EQ(question->sender_ip, Ipv4Address{0});
    EXPECT_EQ(question->sender_mac, mac(1));
    EXPECT_EQ(question->target_ip, kAsked);
    EXPECT_EQ(question->link.remote_mac, kEthernetBroadcast);
    EXPECT_EQ(question->link.tagged, 0U);
    EXPECT_FALSE(probe.poll_output(now + AddressProbe::kIntervalNs - 1));
  }
  EXPECT_FALSE(probe.over(now - 1));
  EXPECT_TRUE(probe.over(now));
  EXPECT_FALSE(probe.other());
  EXPECT_FALSE(probe.poll_output(now));
}

TEST(AddressProbe, who_has_it_or_wants_it_too_is_named) {
  ArpPacket reply = arp_request_for(mac(9), kAsked, kAskers);
  reply.operation = ArpPacket::Operation::reply;
  const ArpPacket announcement = arp_request_for(mac(9), kAsked, kAsked);
  const ArpPacket other_probe = arp_request_for(mac(9), Ipv4Address{0}, kAsked);
  for (const ArpPacket& word : {reply, announcement, other_probe}) {
    AddressProbe probe(mac(1), kAsked, std::nullopt);
    ASSERT_TRUE(probe.poll_output(kStart));
    probe.on_arp(word);
    EXPECT_TRUE(probe.over(kStart));
    ASSERT_TRUE(probe.other());
    EXPECT_EQ(*probe.other(), mac(9));
    EXPECT_FALSE(probe.poll_output(kStart + AddressProbe::kIntervalNs));
  }
}

TEST(AddressProbe, our_own_words_other_addresses_and_other_vlans_are_no_conflict) {
  AddressProbe probe(mac(1), kAsked, uint16_t{7});
  const std::optional<ArpPacket> question = arp_of(probe.poll_output(kStart));
  ASSERT_TRUE(question);
  EXPECT_EQ(question->link.tagged, 1U);
  EXPECT_EQ(question->link.vlan_tci, 7U);
  probe.on_arp(*question);  // a port that hears what it says
  ArpPacket word = arp_request_for(mac(9), kAskers, kAsked);
  word.link.tagged = 1;
  word.link.vlan_tci = 7;
  probe.on_arp(word);  // a question for us from who has another address
  word = arp_request_for(mac(9), kAsked, kAsked);
  probe.on_arp(word);
  word.link.tagged = 1;
  word.link.vlan_tci = 8;
  probe.on_arp(word);
  EXPECT_FALSE(probe.other());
  word.link.vlan_tci = 0x2007;  // priority bits are no part of the VLAN
  probe.on_arp(word);
  EXPECT_TRUE(probe.other());
}

constexpr IpAddress kAsked6{0xfd00'0000'0000'0000, 2};
constexpr IpAddress kAskers6{0xfd00'0000'0000'0000, 1};

TEST(AddressProbe, ipv6_is_asked_for_by_who_has_no_name_at_the_group_of_its_neighbours) {
  AddressProbe probe(mac(1), kAsked6, uint16_t{7});
  uint64_t now = kStart;
  for (uint32_t i = 0; i < AddressProbe::kProbes; ++i, now += AddressProbe::kIntervalNs) {
    const std::optional<AddressProbe::Question> question = probe.poll_output(now);
    ASSERT_TRUE(question && std::holds_alternative<NdpPacket>(*question));
    const auto& asks = std::get<NdpPacket>(*question);
    EXPECT_EQ(asks.kind, NdpPacket::Kind::solicitation);
    EXPECT_TRUE(asks.source.is_unspecified());
    EXPECT_FALSE(asks.has_mac);
    EXPECT_EQ(asks.target, kAsked6);
    EXPECT_EQ(asks.destination, solicited_node(kAsked6));
    EXPECT_EQ(asks.link.vlan_tci, 7);
    NdpPacket echo = asks;  // a port that hears what it says
    echo.link.remote_mac = mac(1);
    probe.on_ndp(echo);
  }
  EXPECT_TRUE(probe.over(now));
  EXPECT_FALSE(probe.other());
}

TEST(AddressProbe, an_ipv6_host_that_has_it_or_wants_it_too_is_named_and_nobody_else) {
  NdpPacket probes_too = ndp_solicitation_for(mac(9), IpAddress{}, kAsked6);
  NdpPacket speaks = ndp_solicitation_for(mac(9), kAsked6, kAskers6);
  for (NdpPacket word : {ndp_announcement_of(mac(9), kAsked6), probes_too, speaks}) {
    AddressProbe probe(mac(1), kAsked6, std::nullopt);
    ASSERT_TRUE(probe.poll_output(kStart));
    word.link.remote_mac = mac(9);  // as it comes in
    probe.on_ndp(word);
    ASSERT_TRUE(probe.other());
    EXPECT_EQ(*probe.other(), mac(9));
  }
  AddressProbe probe(mac(1), kAsked6, std::nullopt);
  for (NdpPacket word :
       {ndp_announcement_of(mac(9), kAskers6), ndp_solicitation_for(mac(9), kAskers6, kAsked6),
        ndp_solicitation_for(mac(9), IpAddress{}, kAskers6)}) {
    word.link.remote_mac = mac(9);
    probe.on_ndp(word);
  }
  EXPECT_FALSE(probe.other());
}

}  // namespace
}  // namespace migrx

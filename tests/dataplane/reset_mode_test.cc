#include "dataplane/reset_mode.h"

#include <gtest/gtest.h>

#include <string>

namespace migrx {
namespace {

constexpr Ipv4Address kSource{0x0a4d0001};
constexpr Ipv4Address kGateway{0x0a4d00fe};
constexpr uint64_t kStart = 5 * kNsPerSecond;

LostConnection lost(uint16_t port, Ipv4Address next_hop = kSource) {
  return {{kSource, {0x0a4d0002}, port, 4444}, {}, next_hop};
}
EthernetAddress mac(uint8_t first, uint8_t last) {
  EthernetAddress address;
  address.bytes[0] = std::byte{first};
  address.bytes[5] = std::byte{last};
  return address;
}
ResetMode begun(const std::vector<LostConnection>& connections) {
  ResetMode mode({.quiet_ns = 3 * kNsPerSecond, .max_ns = 100 * kNsPerSecond, .lost = connections});
  mode.start(kStart);
  return mode;
}
// "?" asks by ARP, a number is a SYN to that port.
std::string probes(ResetMode& mode, uint64_t now_ns) {
  std::string text;
  while (const auto probe = mode.poll_output(now_ns))
    text += (probe->kind == ResetMode::Probe::Kind::who_has ? "?"
                                                            : std::to_string(probe->to->tuple.remote_port)) +
            " ";
  return text;
}

TEST(ResetMode, with_nobody_lost_quiet_ends_it) {
  ResetMode mode = begun({});
  EXPECT_EQ(probes(mode, kStart), "");
  EXPECT_FALSE(mode.over(kStart + 3 * kNsPerSecond - 1));
  mode.on_segment(lost(1).tuple, false, kStart + kNsPerSecond);
  EXPECT_FALSE(mode.over(kStart + 4 * kNsPerSecond - 1));
  EXPECT_TRUE(mode.over(kStart + 4 * kNsPerSecond));
}

// The source's interface may come back late, and its retransmissions have backed off until then.
TEST(ResetMode, a_lost_connection_is_waited_for_however_quiet_it_is) {
  ResetMode mode = begun({lost(1), lost(2)});
  EXPECT_FALSE(mode.over(kStart + 99 * kNsPerSecond));
  EXPECT_TRUE(mode.over(kStart + 100 * kNsPerSecond));
  mode.on_segment(lost(1).tuple, false, kStart + 20 * kNsPerSecond);
  EXPECT_FALSE(mode.over(kStart + 30 * kNsPerSecond));
  mode.on_segment(lost(2).tuple, true, kStart + 31 * kNsPerSecond);
  EXPECT_FALSE(mode.over(kStart + 34 * kNsPerSecond - 1));
  EXPECT_TRUE(mode.over(kStart + 34 * kNsPerSecond));
}

TEST(ResetMode, what_others_send_frees_nobody) {
  ResetMode mode = begun({lost(1)});
  for (uint64_t s = 1; s < 10; ++s) mode.on_segment(lost(7).tuple, s % 2 == 0, kStart + s * kNsPerSecond);
  EXPECT_FALSE(mode.over(kStart + 20 * kNsPerSecond));
}

// The RST that told it may be lost. Its own RST is the proof.
TEST(ResetMode, who_was_told_is_asked_again_and_who_is_gone_is_not) {
  ResetMode mode = begun({lost(1), lost(2), lost(3)});
  EXPECT_EQ(probes(mode, kStart), "? 1 2 3 ");
  EXPECT_EQ(probes(mode, kStart + kNsPerSecond / 2 - 1), "");
  mode.on_segment(lost(2).tuple, true, kStart + 1);
  mode.on_segment(lost(1).tuple, false, kStart + 1);
  EXPECT_EQ(probes(mode, kStart + kNsPerSecond / 2), "? 1 3 ");
  mode.on_segment(lost(1).tuple, true, kStart + kNsPerSecond);
  mode.on_segment(lost(3).tuple, true, kStart + kNsPerSecond);
  EXPECT_EQ(probes(mode, kStart + kNsPerSecond), "");
  EXPECT_TRUE(mode.over(kStart + 4 * kNsPerSecond));
}

TEST(ResetMode, each_next_hop_is_asked_for_its_address_and_news_of_one_is_used_at_once) {
  ResetMode mode = begun({lost(1), lost(2), lost(3, kGateway)});
  EXPECT_EQ(probes(mode, kStart), "? 1 2 ? 3 ");
  mode.on_arp({0x0a4d0063}, mac(2, 9), kStart + 1);  // nobody's
  mode.on_arp(kGateway, mac(3, 9), kStart + 1);      // multicast
  EXPECT_EQ(probes(mode, kStart + 1), "");
  mode.on_arp(kGateway, mac(2, 9), kStart + 1);
  std::vector<EthernetAddress> to;
  while (const auto probe = mode.poll_output(kStart + 1))
    if (probe->kind == ResetMode::Probe::Kind::syn) to.push_back(probe->to->link.remote_mac);
  EXPECT_EQ(to, (std::vector{mac(0, 0), mac(0, 0), mac(2, 9)}));
  mode.on_arp(kGateway, mac(2, 9), kStart + 2);  // that is known
  EXPECT_EQ(probes(mode, kStart + 2), "");
}

}  // namespace
}  // namespace migrx

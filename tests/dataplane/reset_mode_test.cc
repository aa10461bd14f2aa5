#include "dataplane/reset_mode.h"

#include <gtest/gtest.h>

#include <string>

namespace migrx {
namespace {

constexpr Ipv4Address kSource{0x0a4d0001};
constexpr Ipv4Address kOurAddress{0x0a4d0002};
constexpr Ipv4Address kGateway{0x0a4d00fe};
constexpr uint64_t kStart = 5 * kNsPerSecond;

LostConnection lost(uint16_t port, Ipv4Address next_hop = kSource) {
  return {{kSource, kOurAddress, port, 4444}, {}, next_hop};
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
  mode.on_neighbour(kOurAddress, Ipv4Address{0x0a4d0063}, mac(2, 9));  // nobody's
  mode.on_neighbour(kOurAddress, kGateway, mac(3, 9));                 // multicast
  mode.on_neighbour(Ipv4Address{0x0a4d0003}, kGateway, mac(2, 9));     // by another port
  EXPECT_EQ(probes(mode, kStart + 1), "");
  mode.on_neighbour(kOurAddress, kGateway, mac(2, 9));
  const auto probe = mode.poll_output(kStart + 1);
  ASSERT_TRUE(probe);
  EXPECT_EQ(probe->to->tuple.remote_port, 3);
  EXPECT_EQ(probe->to->link.remote_mac, mac(2, 9));
  EXPECT_EQ(probes(mode, kStart + 1), "");
  EXPECT_EQ(probes(mode, kStart + kNsPerSecond / 2), "? 1 2 ? 3 ");
  mode.on_neighbour(kOurAddress, kGateway, mac(2, 9));  // that is known
  EXPECT_EQ(probes(mode, kStart + kNsPerSecond / 2 + 2), "");
}

TEST(ResetMode, who_is_gone_is_not_asked_at_its_new_address_either) {
  ResetMode mode = begun({lost(1), lost(2)});
  EXPECT_EQ(probes(mode, kStart), "? 1 2 ");
  mode.on_neighbour(kOurAddress, kSource, mac(2, 9));
  mode.on_segment(lost(1).tuple, true, kStart + 1);
  EXPECT_EQ(probes(mode, kStart + 2), "2 ");
}

// Two stations that answer for one address, as hosts with two interfaces on a link do.
TEST(ResetMode, answers_that_disagree_make_no_storm) {
  ResetMode mode = begun({lost(1), lost(2)});
  std::size_t sent = 0;
  for (uint64_t us = 0; us < 1'000'000; us += 10) {
    while (mode.poll_output(kStart + us * 1000)) ++sent;
    mode.on_neighbour(kOurAddress, kSource, mac(2, 1));
    mode.on_neighbour(kOurAddress, kSource, mac(2, 2));
  }
  EXPECT_LE(sent, 2U * (1 + 2 + 2));  // rounds; a question, two SYNs, two more for one answer
}

TEST(ResetMode, cores_share_what_they_hear_and_one_asks) {
  const auto board = std::make_shared<ResetBoard>(2);
  ResetModeConfig config{.quiet_ns = kNsPerSecond, .lost = {lost(1), lost(2)}, .board = board};
  ResetMode asking(config);
  config.asks = false;
  ResetMode hearing(config);
  asking.start(kStart);
  hearing.start(kStart);
  EXPECT_EQ(probes(asking, kStart), "? 1 2 ");
  EXPECT_EQ(probes(hearing, kStart), "");
  hearing.on_segment(lost(1).tuple, true, kStart);
  EXPECT_FALSE(asking.is_lost(lost(1).tuple));
  EXPECT_TRUE(asking.is_lost(lost(2).tuple));
  EXPECT_EQ(probes(asking, kStart + kNsPerSecond), "? 2 ");
  EXPECT_FALSE(asking.over(kStart + 2 * kNsPerSecond));
  hearing.on_segment(lost(2).tuple, false, kStart);
  EXPECT_TRUE(asking.over(kStart + 2 * kNsPerSecond));
  EXPECT_TRUE(asking.answers_for(kOurAddress));
  EXPECT_FALSE(asking.answers_for(kGateway));
}

// A listener that has taken the port since, a middlebox: it answers each SYN and is never gone.
TEST(ResetMode, who_answers_for_ever_does_not_keep_it_here) {
  ResetMode mode = begun({lost(1)});
  uint64_t now = kStart;
  for (; !mode.over(now) && now < kStart + 60 * kNsPerSecond; now += kNsPerSecond / 10)
    while (mode.poll_output(now)) mode.on_segment(lost(1).tuple, false, now);
  EXPECT_LT(now, kStart + 4 * kNsPerSecond);
}

}  // namespace
}  // namespace migrx

// Is this segment the peer's? RFC 9293 section 3.10.7.4 (steps one to five), RFC 5961, RFC 7323.
#include "tests/dataplane/tcp/script.h"

namespace migrx {
namespace {

ScriptOptions with_timestamps() {
  ScriptOptions options;
  options.timestamps = true;
  return options;
}

// ---- RST ----

TEST(TcpRst, exactly_at_rcv_nxt_ends_the_connection) {
  Script peer{established()};
  peer.sends(data(1, "aaaa"));
  EXPECT_EQ(peer.sends(rst(5)), TcpCounter::rst);
  peer.in_state(TcpState::closed);
  peer.delivered("aaaa");  // what came before it counts
  peer.stream_end(StreamEnd::reset);
  peer.hears_nothing();
  EXPECT_TRUE(peer.connection.finished());
}

// RFC 5961 section 3.2.
TEST(TcpRst, elsewhere_in_the_window_is_challenged) {
  Script peer{established()};
  EXPECT_EQ(peer.sends(rst(2)), TcpCounter::rst_challenged);
  peer.hears(ack(1).seq(1));
  EXPECT_EQ(peer.sends(rst(65536)), TcpCounter::rst_challenged);
  peer.hears(ack(1));
  peer.in_state(TcpState::established);
  EXPECT_EQ(peer.sends(rst(1)), TcpCounter::rst);  // the honest peer's answer to the challenge
}

TEST(TcpRst, outside_the_window_is_ignored) {
  Script peer{established()};
  EXPECT_EQ(peer.sends(rst(0)), TcpCounter::rst_ignored);
  EXPECT_EQ(peer.sends(rst(70000)), TcpCounter::rst_ignored);
  EXPECT_EQ(peer.sends(rst(0x8000'0000)), TcpCounter::rst_ignored);
  peer.hears_nothing();
  peer.in_state(TcpState::established);
}

TEST(TcpRst, frees_what_was_held_out_of_order) {
  Script peer{established()};
  peer.sends(data(101, "cccc"));
  peer.sends(rst(1));
  peer.stream_end(StreamEnd::reset);
  peer.reclaim();
  EXPECT_EQ(peer.buffers_live(), 0U);
}

TEST(TcpRst, a_closed_connection_knows_nobody) {
  Script peer{established()};
  peer.sends(rst(1));
  EXPECT_EQ(peer.sends(data(1, "aaaa")), TcpCounter::connection_closed);
  peer.hears_nothing();
}

// ---- SYN, RFC 5961 section 4.2 ----

TEST(TcpSyn, on_a_live_connection_is_challenged_wherever_it_stands) {
  Script peer{established()};
  for (const uint32_t seq : {0U, 1U, 500U, 1'000'000U}) {
    EXPECT_EQ(peer.sends(syn(seq).without_ack()), TcpCounter::syn_challenged) << seq;
    peer.hears(ack(1).seq(1));
  }
  peer.in_state(TcpState::established);
}

// ---- Challenge limits, RFC 5961 section 7 ----

TEST(TcpChallenge, acks_are_limited_per_second) {
  auto options = established();
  options.config.challenge_acks_per_second = 3;
  Script peer{options};
  for (int i = 0; i < 10; ++i) {
    peer.sends(rst(100));
    peer.forget_heard();
  }
  peer.counted({{TcpCounter::challenge_acks_sent, 3}, {TcpCounter::challenge_acks_limited, 7}});
  peer.at(1s);
  peer.sends(rst(100));
  peer.hears(ack(1));
  peer.counted({{TcpCounter::challenge_acks_sent, 4}});
}

// Two endpoints that disagree must not answer each other for ever.
TEST(TcpChallenge, stray_acks_do_not_make_a_war) {
  auto options = established();
  options.config.challenge_acks_per_second = 3;
  Script peer{options};
  for (int i = 0; i < 20; ++i) peer.sends(Seg{}.seq(100'000));
  peer.hears(ack(1));
  for (int i = 0; i < 20; ++i) {
    peer.sends(Seg{}.seq(100'000));
    peer.forget_heard();
  }
  peer.counted({{TcpCounter::challenge_acks_sent, 3}, {TcpCounter::outside_window, 40}});
}

// ---- ACK ----

TEST(TcpAck, segment_without_ack_is_dropped) {
  Script peer{established()};
  EXPECT_EQ(peer.sends(data(1, "aaaa").without_ack()), TcpCounter::ack_missing);
  peer.delivered("");
  peer.hears_nothing();
}

TEST(TcpAck, of_bytes_never_sent_is_challenged_and_its_text_dropped) {
  Script peer{established()};
  EXPECT_EQ(peer.sends(data(1, "aaaa").ack(2)), TcpCounter::ack_unacceptable);
  peer.hears(ack(1).seq(1));
  peer.delivered("");
}

// RFC 5961 section 5.2: not older than the largest window the peer ever gave.
TEST(TcpAck, too_old_is_challenged_but_a_little_old_is_fine) {
  auto options = established();
  options.snd_wnd = 1000;
  Script peer{options};
  EXPECT_EQ(peer.sends(data(1, "a").ack(1U - 65535U)), TcpCounter::in_order);
  EXPECT_EQ(peer.sends(data(2, "b").ack(1U - 65536U)), TcpCounter::ack_unacceptable);
  peer.delivered("a");
  peer.forget_heard();
}

// ---- Keepalive of the peer ----

TEST(TcpProbe, keepalive_with_and_without_a_byte_is_answered) {
  Script peer{established()};
  peer.sends(data(1, "aaaa").push());
  peer.forget_heard();
  for (int i = 0; i < 30; ++i) {  // not rate-limited
    EXPECT_EQ(peer.sends(Seg{}.seq(4)), TcpCounter::keepalive_probe);
    peer.hears(ack(5).seq(1));
  }
  EXPECT_EQ(peer.sends(data(4, "a")), TcpCounter::keepalive_probe);
  peer.hears(ack(5));
}

// ---- Timestamps, RFC 7323 ----

TEST(TcpTimestamps, are_sent_and_echoed) {
  Script peer{with_timestamps()};
  peer.at(10ms).sends(data(1, "aaaa").push().ts(1010));
  peer.hears(ack(5).ecr(1010));
}

// Section 4.3: the echo is the timestamp of the segment that began what is acknowledged, so that the peer's
// measured round trip includes our delay.
TEST(TcpTimestamps, echo_is_of_the_earliest_unacknowledged_segment) {
  Script peer{with_timestamps()};
  peer.at(1ms).sends(data(1, "aaaa").ts(1001));
  peer.at(2ms).sends(data(5, "bbbb").ts(1002));
  peer.at(41ms);
  peer.hears(ack(9).ecr(1001));
  peer.at(50ms).sends(data(9, "cccc").ts(1050).push());
  peer.hears(ack(13).ecr(1050));
}

// Section 4.3, case B: a segment beyond a hole does not change the echo, the one that fills it does.
TEST(TcpTimestamps, echo_across_a_hole) {
  Script peer{with_timestamps()};
  peer.sends(data(1, "aaaa").ts(1001).push());
  peer.hears(ack(5).ecr(1001));
  peer.sends(data(9, "cccc").ts(1003));
  peer.hears(ack(5).ecr(1001).sack(9, 13));
  peer.sends(data(5, "bbbb").ts(1004));
  peer.hears(ack(13).ecr(1004));
}

// A stranger may meet the left edge by chance; that his acknowledgment is wrong must come out before his
// timestamp makes the peer's own segments old.
TEST(TcpTimestamps, of_a_segment_whose_acknowledgment_is_wrong_is_not_believed) {
  Script peer{with_timestamps()};
  peer.sends(data(1, "aaaa").ts(1001).push());
  peer.hears(ack(5).ecr(1001));
  EXPECT_EQ(peer.sends(data(3, "XXXX").ack(4'000'000).ts(2'000'000'000)), TcpCounter::ack_unacceptable);
  EXPECT_EQ(peer.sends(flagged(tcp_flag::rst).seq(7).ts(2'000'000'000)), TcpCounter::rst_challenged);
  EXPECT_EQ(peer.sends(data(5, "bbbb").ts(1002).push()), TcpCounter::in_order);
  peer.forget_heard();
  peer.delivered("aaaabbbb");
}

TEST(TcpPaws, old_timestamp_is_refused_and_answered) {
  Script peer{with_timestamps()};
  peer.sends(data(1, "aaaa").ts(2000).push());
  peer.forget_heard();
  EXPECT_EQ(peer.sends(data(5, "XXXX").ts(1999)), TcpCounter::paws_rejected);
  peer.hears(ack(5).ecr(2000));
  peer.delivered("aaaa");
  EXPECT_EQ(peer.sends(data(5, "bbbb").ts(2000)), TcpCounter::in_order);
  peer.delivered("bbbb");
  peer.forget_heard();
}

TEST(TcpPaws, the_timestamp_clock_may_wrap) {
  Script peer{with_timestamps()};
  for (const uint32_t ts : {0x7000'0000U, 0xe000'0000U, 0xffff'ffffU, 0U, 5U}) {
    peer.sends(data(1 + (ts == 0x7000'0000U ? 0U : 0U), "a")
                   .seq(bytes_between(SeqNum{0xffff'fffb}, peer.connection.rcv_nxt()))
                   .ts(ts)
                   .push());
    peer.forget_heard();
  }
  peer.delivered("aaaaa");
}

TEST(TcpPaws, does_not_apply_to_rst) {
  Script peer{with_timestamps()};
  EXPECT_EQ(peer.sends(rst(1).ts(1)), TcpCounter::rst);
}

// Section 5.5.
TEST(TcpPaws, a_connection_idle_for_24_days_starts_afresh) {
  auto options = with_timestamps();
  options.config.keepalive_idle_ns = 0;
  Script peer{options};
  peer.at(24h * 24 + 1s);
  EXPECT_EQ(peer.sends(data(1, "aaaa").ts(1)), TcpCounter::in_order);
  peer.delivered("aaaa");
  peer.forget_heard();
}

// Section 3.2: once negotiated, always there; RSTs excepted.
TEST(TcpTimestamps, missing_timestamp_is_refused) {
  Script peer{with_timestamps()};
  EXPECT_EQ(peer.sends(data(1, "aaaa").no_timestamp()), TcpCounter::timestamp_missing);
  peer.delivered("");
  peer.hears_nothing();
  EXPECT_EQ(peer.sends(rst(1).no_timestamp()), TcpCounter::rst);
}

}  // namespace
}  // namespace migrx

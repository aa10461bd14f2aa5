// The small send side and the timers: RFC 6298, RFC 5681, RFC 9293 sections 3.8.
#include "tests/dataplane/tcp/script.h"

namespace migrx {
namespace {

TEST(TcpSend, bytes_go_at_once_and_carry_the_acknowledgment) {
  Script peer{established()};
  peer.sends(data(1, "aaaa"));
  peer.we_send("pong");
  peer.hears(data(1, "pong").ack(5));
  peer.quiet_until(500ms);  // the delayed ACK is no longer owed
  peer.sends(Seg{}.seq(5).ack(5));
  peer.quiet_until(10s);
}

// Nagle is off: a verdict must not wait for the ACK of the pong before it.
TEST(TcpSend, small_writes_do_not_wait_for_each_other) {
  Script peer{established()};
  peer.we_send("a");
  peer.hears(data(1, "a"));
  peer.we_send("b");
  peer.hears(data(2, "b"));
}

TEST(TcpSend, segments_respect_the_peers_mss_and_window) {
  auto options = established();
  options.mss = 100;
  options.snd_wnd = 250;
  Script peer{options};
  peer.we_send(text(400));
  peer.hears(data(1, text(100)));
  peer.hears(data(101, text(100)));
  peer.hears_nothing();  // 50 would be silly
  peer.sends(Seg{}.seq(1).ack(201));
  peer.hears(data(201, text(100)));
  peer.hears(data(301, text(100)));
}

TEST(TcpSend, queue_is_bounded) {
  Script peer{established()};
  const std::string big = text(SendQueue::kCapacity);
  EXPECT_TRUE(peer.connection.send(std::as_bytes(std::span{big})));
  EXPECT_FALSE(peer.connection.send(std::as_bytes(std::span{big}).first(1)));
  peer.forget_heard();
}

// RFC 6298 section 5: (5.1) start, (5.4) the earliest, (5.5) back off, (5.3) restart by an ACK of new data.
TEST(TcpSend, lost_bytes_are_sent_again_with_back_off) {
  Script peer{established()};
  peer.stops_acking();
  peer.we_send("abc");
  peer.hears(data(1, "abc"));
  peer.quiet_until(999ms);
  peer.at(1s);
  peer.hears(data(1, "abc"));
  peer.quiet_until(2999ms);
  peer.at(3s);
  peer.hears(data(1, "abc"));
  peer.quiet_until(5499ms);  // at most 2.5 s apart: TcpConfig::rto_max_ns
  peer.at(5500ms);
  peer.hears(data(1, "abc"));
  peer.sends(Seg{}.seq(1).ack(4));
  peer.quiet_until(19s);
  peer.counted({{TcpCounter::retransmissions, 3}});
}

// RFC 6298 section 2: the time-out follows the measured round trip, but not below the minimum.
TEST(TcpSend, timeout_follows_the_round_trip) {
  Script peer{established()};
  peer.we_send("a");
  peer.hears(data(1, "a"));
  peer.at(10ms).sends(Seg{}.seq(1).ack(2));  // SRTT 10 ms, RTTVAR 5 ms: below the minimum of 200 ms
  peer.we_send("b");
  peer.hears(data(2, "b"));
  peer.quiet_until(209ms);
  peer.at(210ms);
  peer.hears(data(2, "b"));
}

TEST(TcpSend, round_trip_comes_from_timestamps) {
  auto options = established();
  options.timestamps = true;
  Script peer{options};
  peer.we_send("a");
  peer.hears(data(1, "a"));
  peer.at(400ms).sends(
      Seg{}.seq(1).ack(2).ecr(5000));  // sent at 5.000 s: SRTT 400 ms, RTTVAR 200 ms, RTO 1.2 s
  peer.we_send("b");
  peer.hears(data(2, "b"));
  peer.quiet_until(1599ms);
  peer.at(1600ms);
  peer.hears(data(2, "b"));
}

// RFC 5681 section 3.2.
TEST(TcpSend, three_duplicate_acks_repeat_the_segment) {
  auto options = established();
  options.mss = 100;
  Script peer{options};
  peer.we_send(text(500));
  peer.forget_heard();
  peer.sends(Seg{}.seq(1).ack(1));
  peer.sends(Seg{}.seq(1).ack(1));
  peer.hears_nothing();
  peer.sends(Seg{}.seq(1).ack(1));
  peer.hears(data(1, text(100)));
  peer.forget_heard();
  peer.sends(Seg{}.seq(1).ack(501));
  peer.quiet_until(10s);
}

TEST(TcpSend, partial_acknowledgment_moves_on) {
  auto options = established();
  options.mss = 100;
  Script peer{options};
  peer.stops_acking();
  peer.we_send(text(300));
  peer.forget_heard();
  peer.sends(Seg{}.seq(1).ack(101));
  peer.hears_nothing();
  peer.at(1100ms);
  peer.hears(data(101, text(100)));
  EXPECT_EQ(peer.handoff().bytes_acknowledged.read(), 100U);
}

// RFC 9293 section 3.8.6.1.
TEST(TcpSend, closed_window_is_probed_until_it_opens) {
  auto options = established();
  options.snd_wnd = 0;
  Script peer{options};
  peer.we_send("hello");
  peer.hears_nothing();
  peer.at(1s);
  peer.hears(data(1, "h"));
  peer.sends(Seg{}.seq(1).ack(1).window(0));
  peer.quiet_until(2999ms);
  peer.at(3s);
  peer.hears(data(1, "h"));
  // For as long as the peer answers, even beyond the time a lost segment would be given.
  for (int s = 7; s < 300; s += 10) {
    peer.at(std::chrono::seconds{s});
    peer.forget_heard();
    peer.sends(Seg{}.seq(1).ack(1).window(0));
  }
  peer.in_state(TcpState::established);
  peer.sends(Seg{}.seq(1).ack(1).window(1000));
  peer.hears(data(1, "hello"));
  peer.sends(Seg{}.seq(1).ack(6).window(1000));
  peer.hears_nothing();
}

TEST(TcpSend, peer_that_never_acknowledges_is_given_up) {
  Script peer{established()};
  peer.stops_acking();
  peer.we_send("abc");
  peer.hears(data(1, "abc"));
  peer.at(959s);
  peer.in_state(TcpState::established);
  peer.at(963s);
  peer.in_state(TcpState::closed);
  peer.counted({{TcpCounter::timed_out, 1}});
  peer.stream_end(StreamEnd::timed_out);
}

// A verdict for which a guest stands still: the link was away for minutes, and is back.
TEST(TcpSend, an_outage_of_minutes_is_over_within_seconds) {
  for (const int away_s : {65, 120, 800}) {
    Script peer{established()};
    peer.stops_acking();
    peer.we_send("verdict!");
    peer.at(std::chrono::seconds{away_s});
    peer.forget_heard();
    peer.at(std::chrono::seconds{away_s} + 2500ms);
    EXPECT_GE(peer.heard_count(), 1U) << away_s;
    peer.hears(data(1, "verdict!"));
    peer.in_state(TcpState::established);
  }
}

// ---- Keepalive, RFC 9293 section 3.8.4 ----

TEST(TcpKeepalive, quiet_peer_that_answers_lives_for_ever) {
  Script peer{established()};
  for (int s = 60; s < 3000; s += 60) {
    peer.quiet_until(std::chrono::seconds{s} - 1ms);
    peer.at(std::chrono::seconds{s});
    peer.hears(Seg{}.seq(0).ack(1));  // from below SND.NXT, so that it must be answered
    peer.sends(Seg{}.seq(1).ack(1));
  }
  peer.in_state(TcpState::established);
}

TEST(TcpKeepalive, dead_peer_is_noticed) {
  Script peer{established()};
  peer.at(959s);
  peer.in_state(TcpState::established);
  EXPECT_EQ(peer.heard_count(), 60U);  // at 60 s, 75 s, ... 945 s
  peer.forget_heard();
  peer.at(960s);
  peer.in_state(TcpState::closed);
  peer.hears(flagged(tcp_flag::rst | tcp_flag::ack));
  peer.stream_end(StreamEnd::timed_out);
}

TEST(TcpKeepalive, an_outage_of_minutes_is_survived) {
  for (const int away_s : {65, 120, 800}) {
    Script peer{established()};
    peer.at(std::chrono::seconds{away_s});
    peer.in_state(TcpState::established);
    peer.sends(data(1, "here again"));
    peer.delivered("here again");
    peer.forget_heard();
    peer.at(std::chrono::seconds{away_s + 59});
    EXPECT_LE(peer.heard_count(), 1U) << away_s;  // an ACK; probes begin anew
    peer.in_state(TcpState::established);
  }
}

TEST(TcpKeepalive, silence_is_bounded_by_choice) {
  for (const int bound_s : {4, 50, 300}) {
    auto options = established();
    bound_silence(options.config, static_cast<uint64_t>(bound_s) * kNsPerSecond);
    Script peer{options};
    peer.at(std::chrono::seconds{bound_s} - 1ms);
    peer.in_state(TcpState::established);
    EXPECT_GE(peer.heard_count(), 4U);
    peer.at(std::chrono::seconds{bound_s});
    peer.in_state(TcpState::closed);
  }
  auto options = established();
  bound_silence(options.config, 0);
  Script peer{options};
  peer.at(10h);
  peer.in_state(TcpState::established);
}

TEST(TcpKeepalive, a_sign_of_life_can_be_asked_for) {
  Script peer{established()};
  peer.at(4s);
  ASSERT_TRUE(peer.handoff().probe());
  peer.take_commands();
  peer.hears(Seg{}.seq(0).ack(1));
  peer.hears(Seg{}.seq(1).ack(1));
  const uint64_t before = peer.handoff().heard_ns.read();
  peer.at(4s + 1ms);
  peer.sends(Seg{}.seq(1).ack(1));
  EXPECT_GT(peer.handoff().heard_ns.read(), before);
  peer.quiet_until(64s);
  // While bytes are on their way the retransmission timer asks.
  peer.we_send("abc");
  peer.hears(data(1, "abc"));
  ASSERT_TRUE(peer.handoff().probe());
  peer.take_commands();
  peer.hears_nothing();
}

TEST(TcpKeepalive, and_tells_again_of_a_window_that_has_opened) {
  auto options = established();
  options.slots = 8;
  options.rcv_wnd = 6000;
  Script peer{options};
  for (uint32_t i = 0; i < 6; ++i) peer.sends(data(1 + i * 1000, text(1000)));
  peer.hears(ack(6001).window(0));
  EXPECT_EQ(peer.read(6).size(), 6000U);
  peer.hears(ack(6001).window(6000));  // and the peer does not: it is lost
  peer.quiet_until(4s);
  ASSERT_TRUE(peer.handoff().probe());
  peer.take_commands();
  peer.hears(Seg{}.seq(0).ack(6001));
  peer.hears(Seg{}.seq(1).ack(6001).window(6000));
  peer.quiet_until(8s);
}

// Found by the simulation, seeds 850073298 and 850083383: a sender whose bytes were lost waits for its own
// timer and looks as if it had nothing to say. Its sequence numbers tell.
TEST(TcpKeepalive, the_answer_shows_what_has_left_the_peer_and_not_come) {
  Script peer{established()};
  const Handoff& handoff = peer.handoff();
  peer.sends(data(1, text(1000)));
  peer.forget_heard();
  EXPECT_LE(handoff.bytes_shown.read(), handoff.bytes_received.read());
  peer.at(4s);
  ASSERT_TRUE(peer.handoff().probe());
  peer.take_commands();
  peer.forget_heard();
  EXPECT_EQ(peer.sends(Seg{}.seq(1501)), TcpCounter::ack_behind_hole);
  EXPECT_EQ(handoff.bytes_shown.read(), 1500U);
  EXPECT_EQ(handoff.bytes_received.read(), 1000U);
  peer.sends(data(1001, text(500)));
  peer.forget_heard();
  EXPECT_EQ(handoff.bytes_received.read(), 1500U);
  EXPECT_EQ(handoff.bytes_shown.read(), 1500U);
  // An older answer that comes late takes nothing back, and one from beyond the window tells nothing.
  peer.sends(Seg{}.seq(1501));
  peer.sends(Seg{}.seq(1501 + 1'000'000));
  EXPECT_EQ(handoff.bytes_shown.read(), 1500U);
  peer.forget_heard();
}

// Such a byte is the peer's to send again, until it is taken.
TEST(TcpKeepalive, so_does_a_probe_with_a_byte_beyond_the_window) {
  auto options = established();
  options.slots = 8;
  options.rcv_wnd = 6000;
  Script peer{options};
  for (uint32_t i = 0; i < 6; ++i) peer.sends(data(1 + i * 1000, text(1000)));
  peer.forget_heard();
  EXPECT_EQ(peer.sends(Seg{}.seq(6000)), TcpCounter::zero_window_probe);
  peer.forget_heard();
  EXPECT_LE(peer.handoff().bytes_shown.read(), 6000U);
  EXPECT_EQ(peer.sends(data(6001, "p")), TcpCounter::zero_window_probe);
  peer.forget_heard();
  EXPECT_EQ(peer.handoff().bytes_shown.read(), 6001U);
  EXPECT_EQ(peer.read(6).size(), 6000U);
  peer.forget_heard();
  EXPECT_EQ(peer.sends(data(6001, "p")), TcpCounter::in_order);
  peer.forget_heard();
  EXPECT_EQ(peer.handoff().bytes_shown.read(), peer.handoff().bytes_received.read());
}

TEST(TcpKeepalive, can_be_switched_off) {
  auto options = established();
  options.config.keepalive_idle_ns = 0;
  Script peer{options};
  peer.quiet_until(10h);
  peer.in_state(TcpState::established);
}

// ---- Commands of the control thread ----

TEST(TcpCommands, send_close_and_reset_arrive_in_order) {
  Script peer{established()};
  EXPECT_TRUE(peer.handoff().send(std::as_bytes(std::span{"abc", 3})));
  EXPECT_TRUE(peer.handoff().send(std::as_bytes(std::span{"def", 3})));
  EXPECT_TRUE(peer.handoff().close());
  peer.take_commands();
  peer.hears(data(1, "abcdef").fin());
  EXPECT_FALSE(peer.handoff().all_acknowledged());
  peer.sends(Seg{}.seq(1).ack(8));
  EXPECT_TRUE(peer.handoff().all_acknowledged());
  EXPECT_TRUE(peer.handoff().abort());
  peer.take_commands();
  peer.hears(flagged(tcp_flag::rst | tcp_flag::ack));
}

TEST(TcpCommands, bytes_wait_when_the_queue_is_full_and_are_not_lost) {
  auto options = established();
  options.snd_wnd = 0;
  Script peer{options};
  peer.we_send(text(SendQueue::kCapacity - 2));
  EXPECT_TRUE(peer.handoff().send(std::as_bytes(std::span{"abcd", 4})));
  EXPECT_TRUE(peer.handoff().close());
  peer.take_commands();
  peer.in_state(TcpState::established);  // the close has to wait behind them
  std::string heard;
  for (int i = 0; i < 10; ++i) {
    peer.sends(Seg{}.seq(1).window(2000));
    peer.take_commands();
    heard += peer.all_heard();
  }
  peer.in_state(TcpState::fin_wait_2);
  EXPECT_EQ(heard, text(SendQueue::kCapacity - 2) + "abcd");
}

}  // namespace
}  // namespace migrx

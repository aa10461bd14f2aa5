// The end of connections: RFC 9293 sections 3.6 and 3.10.7.4 (eighth step).
#include "tests/dataplane/tcp/script.h"

namespace migrx {
namespace {

TEST(TcpClose, fin_with_the_last_bytes_ends_the_stream) {
  Script peer{established()};
  EXPECT_EQ(peer.sends(data(1, "aaaa").fin()), TcpCounter::fin);
  peer.delivered("aaaa");
  peer.stream_end(StreamEnd::fin);
  peer.hears(ack(6));
  peer.in_state(TcpState::close_wait);
}

// The way a migration ends: the source closes, then we do.
TEST(TcpClose, peer_first_then_we) {
  Script peer{established()};
  peer.sends(fin(1));
  peer.hears(ack(2));
  peer.we_close();
  peer.in_state(TcpState::last_ack);
  peer.hears(fin(1).ack(2));
  EXPECT_FALSE(peer.connection.finished());
  peer.sends(Seg{}.seq(2).ack(2));
  peer.in_state(TcpState::closed);
  EXPECT_TRUE(peer.connection.finished());
  peer.stream_end(StreamEnd::fin);
}

TEST(TcpClose, fin_beyond_a_hole_waits_for_the_hole) {
  Script peer{established()};
  EXPECT_EQ(peer.sends(data(5, "bbbb").fin()), TcpCounter::out_of_order);
  peer.hears(ack(1).sack(5, 9));
  peer.in_state(TcpState::established);
  EXPECT_EQ(peer.sends(data(1, "aaaa")), TcpCounter::fin);
  peer.hears(ack(10));
  peer.delivered("aaaabbbb");
  peer.stream_end(StreamEnd::fin);
}

TEST(TcpClose, bare_fin_beyond_a_hole_is_remembered) {
  Script peer{established()};
  EXPECT_EQ(peer.sends(fin(5)), TcpCounter::out_of_order);
  peer.hears(ack(1));
  EXPECT_EQ(peer.sends(data(1, "aaaa")), TcpCounter::fin);
  peer.hears(ack(6));
  peer.stream_end(StreamEnd::fin);
}

TEST(TcpClose, bytes_beyond_the_fin_are_not_believed) {
  Script peer{established()};
  peer.sends(fin(5));
  EXPECT_EQ(peer.sends(data(5, "XXXX")), TcpCounter::after_fin);
  peer.sends(data(1, "aaaaXXXX"));
  peer.delivered("aaaa");
  peer.stream_end(StreamEnd::fin);
  EXPECT_EQ(peer.sends(data(6, "XXXX")), TcpCounter::after_fin);
  peer.delivered("");
  peer.forget_heard();
}

TEST(TcpClose, fin_before_bytes_already_held_is_not_believed) {
  Script peer{established()};
  peer.sends(data(5, "bbbb"));
  peer.sends(fin(3));
  peer.sends(data(1, "aaaa"));
  peer.delivered("aaaabbbb");
  peer.in_state(TcpState::established);
  peer.forget_heard();
}

TEST(TcpClose, fin_outside_the_window_is_refused) {
  auto options = established();
  options.rcv_wnd = 1000;
  Script peer{options};
  EXPECT_EQ(peer.sends(fin(1002)), TcpCounter::outside_window);
  peer.hears(ack(1));
  peer.sends(data(1, std::string(1500, 'x')).fin());
  peer.delivered(std::string(1000, 'x'));
  peer.in_state(TcpState::established);
  peer.forget_heard();
}

// The end marker has a place of its own.
TEST(TcpClose, fin_is_taken_when_the_window_is_shut) {
  auto options = established();
  options.slots = 8;
  options.rcv_wnd = 7000;
  Script peer{options};
  for (uint32_t i = 0; i < 7; ++i) peer.sends(data(1 + i * 1000, std::string(1000, 'x')));
  peer.hears(ack(7001).window(0));
  EXPECT_EQ(peer.sends(fin(7001)), TcpCounter::fin);
  peer.hears(ack(7002).window(0));
  peer.delivered(std::string(7000, 'x'));
  peer.stream_end(StreamEnd::fin);
}

TEST(TcpClose, repeated_fin_is_acknowledged_again) {
  Script peer{established()};
  peer.sends(fin(1));
  peer.hears(ack(2));
  EXPECT_EQ(peer.sends(fin(1)), TcpCounter::duplicate);
  peer.hears(ack(2));
  peer.stream_end(StreamEnd::fin);
}

// Half close from their side: QEMU's source may still read when it has stopped writing.
TEST(TcpClose, we_may_send_in_close_wait) {
  Script peer{established()};
  peer.sends(fin(1));
  peer.hears(ack(2));
  peer.we_send("verdict");
  peer.hears(data(1, "verdict").ack(2));
  peer.sends(Seg{}.seq(2).ack(8));
  EXPECT_EQ(peer.handoff().bytes_acknowledged.read(), 7U);
  peer.quiet_until(5s);
}

// Half close from ours.
TEST(TcpClose, data_is_taken_in_fin_wait) {
  Script peer{established()};
  peer.we_close();
  peer.in_state(TcpState::fin_wait_1);
  peer.hears(fin(1).ack(1));
  peer.sends(data(1, "aaaa").ack(1).push());
  peer.hears(ack(5));
  peer.sends(data(5, "bbbb").ack(2).push());
  peer.in_state(TcpState::fin_wait_2);
  peer.hears(ack(9));
  peer.delivered("aaaabbbb");
  peer.at(10s).sends(fin(9).ack(2));
  peer.in_state(TcpState::time_wait);
  peer.hears(ack(10).seq(2));
  peer.stream_end(StreamEnd::fin);
  peer.at(69s);
  peer.in_state(TcpState::time_wait);
  peer.at(71s);
  EXPECT_TRUE(peer.connection.finished());
}

TEST(TcpClose, fin_and_ack_of_ours_in_one_segment) {
  Script peer{established()};
  peer.we_close();
  peer.hears(fin(1));
  peer.sends(fin(1).ack(2));
  peer.in_state(TcpState::time_wait);
  peer.hears(ack(2).seq(2));
}

TEST(TcpClose, simultaneous_close_goes_through_closing) {
  Script peer{established()};
  peer.stops_acking();
  peer.we_close();
  peer.hears(fin(1).ack(1));
  peer.sends(fin(1).ack(1));
  peer.in_state(TcpState::closing);
  peer.hears(ack(2).seq(2));
  peer.sends(Seg{}.seq(2).ack(2));
  peer.in_state(TcpState::time_wait);
  peer.hears_nothing();
  peer.stream_end(StreamEnd::fin);
}

TEST(TcpTimeWait, repeated_fin_is_acknowledged_and_starts_the_time_again) {
  Script peer{established()};
  peer.we_close();
  peer.sends(Seg{}.seq(1).ack(1));
  peer.hears(fin(1));
  peer.sends(fin(1).ack(2));
  peer.hears(ack(2));
  peer.at(50s);
  peer.sends(fin(1).ack(2));
  peer.hears(ack(2));
  peer.at(100s);
  peer.in_state(TcpState::time_wait);
  peer.at(111s);
  peer.in_state(TcpState::closed);
}

// RFC 1337.
TEST(TcpTimeWait, is_not_ended_by_rst) {
  Script peer{established()};
  peer.we_close();
  peer.forget_heard();
  peer.sends(fin(1).ack(2));
  peer.forget_heard();
  EXPECT_EQ(peer.sends(rst(2)), TcpCounter::rst_ignored);
  peer.in_state(TcpState::time_wait);
}

// RFC 6191.
TEST(TcpTimeWait, gives_way_to_a_new_syn_beyond_the_old_sequence) {
  for (const bool newer : {true, false}) {
    Script peer{established()};
    peer.we_close();
    peer.forget_heard();
    peer.sends(fin(1).ack(2));
    peer.forget_heard();
    const TcpCounter fate = peer.sends(syn(newer ? 100U : 0U).without_ack());
    EXPECT_EQ(fate, newer ? TcpCounter::time_wait_reuse : TcpCounter::syn_challenged);
    EXPECT_EQ(peer.connection.finished(), newer);
    peer.forget_heard();
  }
}

TEST(TcpClose, lost_fin_is_sent_again) {
  Script peer{established()};
  peer.stops_acking();
  peer.we_close();
  peer.hears(fin(1));
  peer.at(1100ms);  // the initial RTO is 1 s
  peer.hears(fin(1));
  peer.counted({{TcpCounter::retransmissions, 1}});
  peer.sends(Seg{}.seq(1).ack(2));
  peer.in_state(TcpState::fin_wait_2);
}

TEST(TcpClose, fin_follows_what_is_queued) {
  Script peer{established()};
  peer.we_send("last words");
  peer.we_close();
  peer.hears(data(1, "last words").fin());
  peer.sends(Seg{}.seq(1).ack(12));
  peer.in_state(TcpState::fin_wait_2);
}

// RFC 1122 section 4.2.2.13: bytes that nobody will read are answered with RST.
TEST(TcpClose, data_for_a_reader_that_is_gone_resets) {
  Script peer{established()};
  peer.sends(data(1, "aaaa"));
  peer.delivered("aaaa");
  peer.handoff().detach();
  peer.reclaim();  // the poll core notices when it looks for slots
  EXPECT_EQ(peer.sends(data(5, "bbbb")), TcpCounter::after_close);
  peer.hears(flagged(tcp_flag::rst | tcp_flag::ack).ack(5));
  EXPECT_TRUE(peer.connection.finished());
}

TEST(TcpClose, fin_after_the_reader_is_gone_is_no_reason_for_rst) {
  Script peer{established()};
  peer.handoff().detach();
  EXPECT_EQ(peer.sends(fin(1)), TcpCounter::fin);
  peer.hears(ack(2));
}

TEST(TcpClose, fin_wait_2_without_a_reader_ends) {
  Script peer{established()};
  peer.we_close();
  peer.forget_heard();
  peer.sends(Seg{}.seq(1).ack(2));
  peer.in_state(TcpState::fin_wait_2);
  peer.handoff().detach();
  // The peer lives and answers keepalives, but will never finish.
  for (int s = 1; s < 70; s += 5) {
    peer.at(std::chrono::seconds{s});
    if (!peer.connection.finished()) peer.sends(Seg{}.seq(1).ack(2));
    peer.forget_heard();
  }
  EXPECT_TRUE(peer.connection.finished());
}

TEST(TcpAbort, sends_rst_and_tells_the_loader) {
  Script peer{established()};
  peer.sends(data(1, "aaaa"));
  peer.we_abort();
  peer.hears(flagged(tcp_flag::rst | tcp_flag::ack).seq(1).ack(5));
  peer.delivered("aaaa");
  peer.stream_end(StreamEnd::local);
  EXPECT_TRUE(peer.connection.finished());
  peer.quiet_until(1s);
}

}  // namespace
}  // namespace migrx

// Text in and out of order, the window, acknowledgments: RFC 9293 section 3.10.7.4 (first and seventh step),
// RFC 5681 section 4.2, RFC 2018, RFC 2883.
#include "tests/dataplane/tcp/script.h"

namespace migrx {
namespace {

// RFC 9293 3.10.7.4: text beyond RCV.NXT is held, not delivered. RFC 5681 4.2: opening or filling
// a hole is acknowledged at once. RFC 2018 4: the acknowledgment names the held block.
TEST(TcpEstablished, hole_is_sacked_then_filled_and_delivered_once) {
  // The peer's first byte is 1; the hole, byte 5, is sequence number 0.
  Script peer{established()};

  peer.at(0us).sends(data(1, "aaaa"));
  peer.delivered("aaaa");
  peer.hears_nothing();  // the delayed-ACK timer is running

  peer.at(10us).sends(data(9, "cccc"));  // bytes 5..8 are missing
  peer.hears(ack(5).sack(9, 13));
  peer.delivered("");

  peer.at(20us).sends(data(5, "bbbb"));
  peer.delivered("bbbbcccc");
  peer.hears(ack(13).no_sack());
  peer.counted({{TcpCounter::in_order, 2}, {TcpCounter::out_of_order, 1}});
  peer.quiet_until(1s);
}

TEST(TcpEstablished, delayed_ack_comes_after_its_time) {
  Script peer{established()};
  peer.at(1ms).sends(data(1, "aaaa"));
  peer.quiet_until(40ms);
  peer.at(41ms);
  peer.hears(ack(5));
  peer.quiet_until(1s);
}

TEST(TcpEstablished, two_full_segments_are_acknowledged_once_per_burst) {
  Script peer{established()};
  for (uint32_t i = 0; i < 8; ++i) peer.sends(data(1 + i * 1000, text(1000)));
  peer.hears(ack(8001));
  peer.hears_nothing();
}

TEST(TcpEstablished, pushed_data_is_acknowledged_at_the_end_of_the_burst) {
  Script peer{established()};
  peer.sends(data(1, "a").push());
  peer.hears(ack(2));
}

TEST(TcpEstablished, duplicate_is_answered_with_dsack) {
  Script peer{established()};
  peer.sends(data(1, "aaaabbbb").push());
  peer.hears(ack(9));
  peer.delivered("aaaabbbb");
  EXPECT_EQ(peer.sends(data(1, "aaaa")), TcpCounter::duplicate);
  peer.hears(ack(9).sack(1, 5));  // RFC 2883 section 4.1.1
  peer.delivered("");
  peer.counted({{TcpCounter::duplicate, 1}, {TcpCounter::dsacks_sent, 1}});
}

// It looks as a keepalive does that carries a byte (RFC 9293 section 3.8.4).
TEST(TcpEstablished, a_repeated_byte_is_answered_with_dsack) {
  Script peer{established()};
  peer.sends(data(1, "a").push());
  peer.hears(ack(2));
  EXPECT_EQ(peer.sends(data(1, "a")), TcpCounter::keepalive_probe);
  peer.hears(ack(2).sack(1, 2));
}

// RFC 2883 section 4.1.2: the duplicate first, then the block that holds data above the hole.
TEST(TcpEstablished, dsack_of_a_held_block_stands_before_that_block) {
  Script peer{established()};
  peer.sends(data(9, "ccccdddd"));
  peer.hears(ack(1).sack(9, 17));
  EXPECT_EQ(peer.sends(data(9, "cccc")), TcpCounter::duplicate);
  peer.hears(ack(1).sack(9, 13).sack(9, 17));
}

TEST(TcpEstablished, sack_blocks_stand_in_order_of_recency) {
  Script peer{established()};
  peer.sends(data(11, "b"));
  peer.hears(ack(1).sack(11, 12));
  peer.sends(data(21, "c"));
  peer.hears(ack(1).sack(21, 22).sack(11, 12));
  peer.sends(data(31, "d"));
  peer.hears(ack(1).sack(31, 32).sack(21, 22).sack(11, 12));
  peer.sends(data(12, "b"));
  peer.hears(ack(1).sack(11, 13).sack(31, 32).sack(21, 22));
}

TEST(TcpEstablished, without_sack_a_hole_is_a_plain_duplicate_ack) {
  auto options = established();
  options.sack = false;
  Script peer{options};
  peer.sends(data(9, "cccc"));
  peer.hears(ack(1).no_sack());
  peer.sends(data(13, "cccc"));
  peer.hears(ack(1).no_sack());
}

// RFC 5681 section 3.2: the third duplicate makes the sender repeat; one ACK for a whole burst would leave it
// to its timer.
TEST(TcpEstablished, without_sack_each_segment_beyond_a_hole_is_a_duplicate_ack_of_its_own) {
  auto options = established();
  options.sack = false;
  Script peer{options};
  peer.sends(data(1, "aaaa"));
  for (uint32_t seq = 9; seq < 21; seq += 4) peer.sends(data(seq, "cccc"));
  for (int n = 0; n < 4; ++n) peer.hears(ack(5));  // one that is new, three duplicates
  peer.hears_nothing();
  peer.sends(data(21, "dddd"));
  peer.sends(data(5, "bbbb"));  // fills the hole: nothing is owed any more
  peer.hears(ack(25));
  peer.hears_nothing();
  peer.delivered("aaaabbbbccccccccccccdddd");
}

TEST(TcpEstablished, overlap_with_other_bytes_keeps_the_first_and_is_counted) {
  Script peer{established()};
  peer.sends(data(5, "bbbb"));
  peer.sends(data(3, "aaXX"));
  peer.sends(data(1, "aaaa"));
  peer.delivered("aaaabbbb");
  peer.counted({{TcpCounter::overlap_differs, 1}});
  peer.forget_heard();
}

TEST(TcpEstablished, partly_old_segment_delivers_only_its_new_part) {
  Script peer{established()};
  peer.sends(data(1, "aaaa"));
  EXPECT_EQ(peer.sends(data(3, "aabb")), TcpCounter::in_order);
  peer.delivered("aaaabb");
  peer.at(50ms);
  peer.hears(ack(7).sack(3, 5));
}

TEST(TcpEstablished, chained_buffers_are_kept_one_by_one) {
  auto options = established();
  options.slice_bytes = 3;
  Script peer{options};
  peer.sends(data(1, "abcdefgh"));
  EXPECT_EQ(peer.buffers_live(), 3U);
  peer.sends(data(5, "efghijkl"));  // its first two buffers bring "h" at most, which is old: e..g, h i j, k l
  peer.delivered("abcdefghijkl");
  peer.sends(data(20, "tuvw"));
  peer.sends(data(13, "mnopqrs"));
  peer.delivered("mnopqrstuvw");
  peer.forget_heard();
}

TEST(TcpEstablished, urgent_data_is_ordinary_data) {
  Script peer{established()};
  EXPECT_EQ(peer.sends(data(1, "aaaa").urgent()), TcpCounter::in_order);
  peer.delivered("aaaa");
  peer.counted({{TcpCounter::urgent, 1}});
  peer.forget_heard();
}

TEST(TcpEstablished, sequence_numbers_wrap_in_the_middle_of_a_segment) {
  auto options = established();
  options.irs = SeqNum{0xffff'ff00};
  Script peer{options};
  std::string sent;
  for (uint32_t i = 0; i < 40; ++i) {
    const std::string piece = text(100, static_cast<char>('a' + i % 26));
    peer.sends(data(1 + i * 100, piece));
    sent += piece;
    if (i % 7 == 0) {
      peer.delivered(sent);
      sent.clear();
    }
  }
  peer.delivered(sent);
  peer.forget_heard();
}

// ---- The window ----

TEST(TcpWindow, text_beyond_the_right_edge_is_trimmed) {
  auto options = established();
  options.rcv_wnd = 1000;
  Script peer{options};
  EXPECT_EQ(peer.right_edge(), 1001U);
  EXPECT_EQ(peer.sends(data(1, text(1200))), TcpCounter::in_order);
  peer.delivered(text(1000));
  peer.forget_heard();
  EXPECT_EQ(peer.connection.rcv_nxt(), SeqNum{0xffff'fffb} + 1001);
}

TEST(TcpWindow, fits_the_round_trip_that_the_handshake_showed) {
  const auto window = [](uint64_t rtt_ns, uint64_t path_bytes_per_s) {
    auto options = established();
    options.rcv_wnd = 1 << 20;
    options.syn_wnd = 5000;
    options.scale = 5;
    options.slots = 2048;
    options.rtt_ns = rtt_ns;
    options.config.path_bytes_per_s = path_bytes_per_s;
    options.config.window_least_bytes = 100'000;
    Script peer{options};
    EXPECT_EQ(peer.right_edge(), 5001U);  // what SYN-ACK promised
    peer.sends(data(1, text(1000)));
    peer.sends(data(1001, text(1000)));
    peer.delivered(text(1000) + text(1000));
    peer.forget_heard();
    return peer.right_edge() - 2001;
  };
  constexpr uint64_t kRate = 1'000'000'000;
  EXPECT_EQ(window(10'000, kRate), 100'000U);               // the least
  EXPECT_EQ(window(200'000, kRate), 402'000U);              // two round trips' worth, microseconds rounded up
  EXPECT_EQ(window(5'000'000, kRate), 1U << 20);            // the most
  EXPECT_EQ(window(2'000'000'000, 100 * kRate), 1U << 20);  // that was no round trip
  EXPECT_EQ(window(0, kRate), 1U << 20);                    // unknown: SYN-ACK was sent twice, or a cookie
  EXPECT_EQ(window(10'000, 0), 1U << 20);                   // the operator's word
}

TEST(TcpWindow, text_wholly_outside_is_answered_and_dropped) {
  auto options = established();
  options.rcv_wnd = 1000;
  Script peer{options};
  EXPECT_EQ(peer.sends(data(1001, "x")), TcpCounter::outside_window);
  peer.hears(ack(1));
  EXPECT_EQ(peer.sends(data(5000, "x")), TcpCounter::outside_window);
  peer.hears(ack(1));
  EXPECT_EQ(peer.sends(data(1000, "x")), TcpCounter::out_of_order);  // the last byte of the window
  peer.hears(ack(1).sack(1000, 1001));
}

TEST(TcpWindow, closes_as_slots_go_and_reopens_when_the_loader_reads) {
  auto options = established();
  options.slots = 8;  // 7 to be used, of which the window counts 6
  options.rcv_wnd = 6000;
  Script peer{options};
  uint32_t edge = peer.right_edge();
  for (uint32_t i = 0; i < 6; ++i) {
    peer.sends(data(1 + i * 1000, text(1000)));
    EXPECT_GE(peer.right_edge(), edge);
    edge = peer.right_edge();
  }
  peer.hears(ack(6001).window(0));
  peer.counted({{TcpCounter::zero_windows_sent, 1}});
  // RFC 9293 section 3.8.6.1: a probe is answered while the window is closed, and its text is not taken.
  peer.at(300ms);
  EXPECT_EQ(peer.sends(data(6001, "p")), TcpCounter::zero_window_probe);
  peer.hears(ack(6001).window(0));
  EXPECT_EQ(peer.sends(Seg{}.seq(6000)), TcpCounter::zero_window_probe);  // as Linux probes
  peer.hears(ack(6001).window(0));
  // One slot is enough to say so: the peer has nothing.
  EXPECT_EQ(peer.read(1).size(), 1000U);
  peer.hears(ack(6001).window(1000));
  peer.sends(data(6001, text(1000)));
  peer.delivered(text(6000));
  peer.hears(ack(7001).window(6000));
}

TEST(TcpWindow, update_waits_for_two_segments_unless_the_window_is_shut) {
  auto options = established();
  options.slots = 16;
  options.rcv_wnd = 14000;
  Script peer{options};
  for (uint32_t i = 0; i < 10; ++i) peer.sends(data(1 + i * 1000, text(1000)));
  peer.hears(ack(10001).window(4000));
  EXPECT_EQ(peer.read(1).size(), 1000U);
  peer.hears_nothing();
  EXPECT_EQ(peer.read(1).size(), 1000U);
  peer.hears(ack(10001).window(6000));
  peer.counted({{TcpCounter::window_updates_sent, 1}});
  peer.delivered(text(8000));
  peer.hears(ack(10001).window(14000));
}

// The next ACK will say it.
TEST(TcpWindow, growth_of_a_wide_open_window_is_no_reason_to_speak) {
  auto options = established();
  options.slots = 16;
  options.rcv_wnd = 14000;
  Script peer{options};
  for (uint32_t i = 0; i < 4; ++i) peer.sends(data(1 + i * 1000, text(1000)));
  peer.hears(ack(4001).window(10000));
  peer.delivered(text(4000));
  peer.hears_nothing();
  peer.sends(data(4001, "x").push());
  peer.hears(ack(4002).window(13000));  // in steps of whole segments of what fits
  peer.counted({{TcpCounter::window_updates_sent, 0}});
}

// RFC 9293 section 3.8.6.2.2: no crumbs.
TEST(TcpWindow, edge_moves_in_whole_segments) {
  auto options = established();
  options.slots = 8;
  options.rcv_wnd = 7000;
  Script peer{options};
  for (uint32_t i = 0; i < 7; ++i) peer.sends(data(1 + i * 10, text(10)));
  peer.at(1s);
  peer.hears(ack(71).window(6930));  // the edge stays, whatever fits
  EXPECT_EQ(peer.right_edge(), 7001U);
  peer.delivered(text(70));
  peer.hears_nothing();
  EXPECT_EQ(peer.right_edge(), 7001U);
}

// Where packet buffers are shared with somebody, nothing can be written behind what came.
TEST(TcpWindow, tiny_segments_over_quota_are_dropped_unacknowledged_and_counted) {
  auto options = established();
  options.slots = 8;
  options.rcv_wnd = 7000;
  Script peer{options};
  for (uint32_t i = 0; i < 7; ++i) EXPECT_EQ(peer.sends(data(1 + i, "x")), TcpCounter::in_order);
  EXPECT_EQ(peer.sends(data(8, "y")), TcpCounter::over_quota);
  peer.hears(ack(8));
  EXPECT_EQ(peer.right_edge(), 7001U);
  peer.delivered("xxxxxxx");
  EXPECT_EQ(peer.sends(data(8, "y")), TcpCounter::in_order);
  peer.delivered("y");
  EXPECT_EQ(peer.handoff().over_quota.read(), 1U);
  peer.forget_heard();
}

// The deadlock that must not be: every place taken by data beyond a hole.
TEST(TcpWindow, out_of_order_data_gives_way_to_what_fills_the_hole) {
  auto options = established();
  options.slots = 8;
  options.rcv_wnd = 7000;
  Script peer{options};
  uint32_t kept = 0;
  for (uint32_t i = 0; i < 9; ++i)
    kept += peer.sends(data(101 + 2 * i, "z")) == TcpCounter::out_of_order ? 1U : 0U;
  EXPECT_EQ(kept, 6U);  // one place per full segment is held back
  // In-order bytes, one by one, without the loader reading: they push the others out.
  for (uint32_t i = 0; i < 7; ++i) EXPECT_EQ(peer.sends(data(1 + i, "a")), TcpCounter::in_order) << i;
  EXPECT_EQ(peer.sends(data(8, "a")), TcpCounter::over_quota);
  peer.counted({{TcpCounter::out_of_order_evicted, 6}});
  peer.reclaim();
  EXPECT_EQ(peer.buffers_live(), 7U);
  peer.delivered("aaaaaaa");
  peer.forget_heard();
}

TEST(TcpWindow, scaled_window_is_rounded_down_and_its_edge_stays_acceptable) {
  auto options = established();
  options.scale = 4;
  options.rcv_wnd = 16000;
  Script peer{options};
  peer.sends(data(1, text(1)).push());
  peer.hears(ack(2).window(15984));  // 15999 rounded down to 16
  EXPECT_EQ(peer.sends(data(16000, "e")), TcpCounter::out_of_order);
  peer.forget_heard();
}

TEST(TcpWindow, pure_ack_from_the_right_edge_counts) {
  auto options = established();
  options.rcv_wnd = 4000;
  Script peer{options};
  peer.we_send("ping");
  peer.hears(data(1, "ping"));
  // The peer has filled the window, one segment of which was lost on the way, and acknowledges from its
  // SND.NXT.
  peer.sends(data(1001, text(3000)));
  peer.hears(ack(1).sack(1001, 4001));
  EXPECT_EQ(peer.sends(Seg{}.seq(4001).ack(5)), TcpCounter::ack_behind_hole);
  EXPECT_EQ(peer.handoff().bytes_acknowledged.read(), 4U);
}

}  // namespace
}  // namespace migrx

// The handshake: RFC 9293 sections 3.5 and 3.10.7.2, RFC 6528, RFC 4987, RFC 7323 section 2, RFC 2018
// section 2.
#include "dataplane/tcp/listener.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "dataplane/tcp/connection.h"

namespace migrx {
namespace {

constexpr uint64_t kStart = 100 * kNsPerSecond;

struct TcpListenerTest : testing::Test {
  TcpConfig tcp;
  ListenerConfig config;
  TenantConfig tenant;
  TcpCounters counters;
  OutSegment reply;
  TcpHandshake handshake;
  uint64_t now = kStart;
  std::unique_ptr<TcpListener> listener;

  void SetUp() override {
    config.secret.fill(7);
    config.syn_table_entries = 8;
    make();
  }
  void make() { listener = std::make_unique<TcpListener>(config, tcp, counters); }

  static TcpSegment syn(uint16_t port = 45678, uint32_t ip = 0x0a4d0001) {
    TcpSegment s;
    s.tuple = {Ipv4Address{ip}, Ipv4Address{0x0a4d0002}, port, 4444};
    s.seq = SeqNum{0xffff'ffff};
    s.flags = tcp_flag::syn;
    s.window = 64000;
    s.options =
        tcp_option::mss | tcp_option::window_scale | tcp_option::sack_permitted | tcp_option::timestamps;
    s.mss = 1460;
    s.window_scale = 7;
    s.ts_val = 500;
    return s;
  }
  TcpSegment ack_of(const TcpSegment& s) const {
    TcpSegment a = s;
    a.seq = s.seq + 1;
    a.ack = reply.seq + 1;
    a.flags = tcp_flag::ack;
    a.options = s.options & tcp_option::timestamps;
    a.ts_val = s.ts_val + 1;
    a.ts_ecr = reply.ts_val;
    a.window = 500;
    return a;
  }
  TcpListener::Result give(const TcpSegment& s, uint32_t free = 10) {
    return listener->on_segment(s, &tenant, free, now, reply, handshake);
  }
  void expect(TcpListener::Result got, TcpListener::Action action, TcpCounter fate) {
    EXPECT_EQ(static_cast<int>(got.action), static_cast<int>(action));
    EXPECT_EQ(static_cast<int>(got.fate), static_cast<int>(fate))
        << kTcpCounterInfo[static_cast<std::size_t>(got.fate)].name;
  }
};
using Action = TcpListener::Action;

TEST_F(TcpListenerTest, syn_gets_syn_ack_with_everything_we_can) {
  expect(give(syn()), Action::reply, TcpCounter::syn);
  EXPECT_EQ(reply.flags, tcp_flag::syn | tcp_flag::ack);
  EXPECT_EQ(reply.ack, SeqNum{0});
  EXPECT_EQ(reply.options,
            tcp_option::mss | tcp_option::window_scale | tcp_option::sack_permitted | tcp_option::timestamps);
  EXPECT_EQ(reply.mss, 1460);
  EXPECT_EQ(reply.window_scale, 7);  // 4 MiB
  EXPECT_EQ(reply.ts_ecr, 500U);
  EXPECT_EQ(reply.window, 65535);  // never scaled
  EXPECT_EQ(listener->half_open(), 1U);

  now += 3 * kNsPerMs;
  expect(give(ack_of(syn())), Action::accept, TcpCounter::handshake_done);
  EXPECT_EQ(listener->half_open(), 0U);
  EXPECT_EQ(handshake.tuple, syn().tuple);
  EXPECT_EQ(handshake.irs, SeqNum{0xffff'ffff});
  EXPECT_EQ(handshake.iss, reply.seq);
  EXPECT_EQ(handshake.send_shift, 7);
  EXPECT_EQ(handshake.receive_shift, 7);
  EXPECT_TRUE(handshake.timestamps && handshake.sack);
  EXPECT_EQ(handshake.send_window, 500U << 7);
  EXPECT_EQ(handshake.rtt_ns, 3 * kNsPerMs);
}

// A window of two segments that is rounded down to the unit of 4 MiB holds but one, and its sender would wait
// for the delayed acknowledgment each time.
TEST_F(TcpListenerTest, the_window_scale_is_no_coarser_than_the_quota_needs) {
  tcp.buffer_quota = buffer_quota_min(tcp);
  make();
  give(syn());
  EXPECT_EQ(reply.window_scale, 0);
  EXPECT_EQ(reply.window, 2 * 1460);
  tcp.buffer_quota = 512;
  make();
  give(syn());
  EXPECT_EQ(reply.window_scale, 4);
}

// RFC 7323 section 1.3, RFC 2018 section 2: nothing the peer did not offer.
TEST_F(TcpListenerTest, only_offered_options_are_answered) {
  TcpSegment plain = syn();
  plain.options = 0;
  give(plain);
  EXPECT_EQ(reply.options, tcp_option::mss);
  expect(give(ack_of(plain)), Action::accept, TcpCounter::handshake_done);
  EXPECT_EQ(handshake.send_mss, 536);  // RFC 9293 section 3.7.1
  EXPECT_EQ(handshake.receive_shift, 0);
  EXPECT_EQ(handshake.send_shift, 0);
  EXPECT_FALSE(handshake.timestamps || handshake.sack);
  EXPECT_EQ(handshake.send_window, 500U);
}

TEST_F(TcpListenerTest, what_is_switched_off_is_not_offered) {
  tcp.timestamps = tcp.sack = tcp.window_scaling = false;
  make();
  give(syn());
  EXPECT_EQ(reply.options, tcp_option::mss);
}

// RFC 7323 section 2.3.
TEST_F(TcpListenerTest, window_scale_above_14_is_taken_as_14) {
  TcpSegment s = syn();
  s.window_scale = 200;
  give(s);
  give(ack_of(s));
  EXPECT_EQ(handshake.send_shift, 14);
}

TEST_F(TcpListenerTest, tiny_mss_is_not_obeyed_to_the_letter) {
  TcpSegment s = syn();
  s.mss = 1;
  give(s);
  give(ack_of(s));
  EXPECT_EQ(handshake.send_mss, 64);
}

TEST_F(TcpListenerTest, first_data_may_come_with_the_ack) {
  TcpSegment s = syn();
  give(s);
  TcpSegment a = ack_of(s);
  a.payload_length = 4;
  a.flags |= tcp_flag::psh;
  expect(give(a), Action::accept, TcpCounter::handshake_done);
  Handoff handoff{16};
  TcpConnection connection{tcp, handoff, counters};
  connection.open(handshake, now);
  const char* const text = "QEVM";
  int buffer = 0;
  Slice slice{reinterpret_cast<const std::byte*>(text), &buffer, 4, StreamEnd::none};
  EXPECT_EQ(connection.on_segment(a, {&slice, 1}, now), TcpCounter::in_order);
  EXPECT_EQ(slice.buffer, nullptr);
  OutSegment out;
  ASSERT_TRUE(connection.poll_output(now, out));
  EXPECT_EQ(out.ack, SeqNum{4});
  EXPECT_EQ(handoff.readable().size(), 1U);
}

TEST_F(TcpListenerTest, lost_syn_ack_is_repeated_then_forgotten) {
  give(syn());
  const SeqNum iss = reply.seq;
  uint32_t repeats = 0;
  for (int ms = 0; ms < 200'000; ms += 100) {
    now += 100 * kNsPerMs;
    OutSegment out;
    while (listener->poll_output(now, out)) {
      EXPECT_EQ(out.seq, iss);
      EXPECT_EQ(out.flags, tcp_flag::syn | tcp_flag::ack);
      ++repeats;
    }
  }
  EXPECT_EQ(repeats, config.syn_ack_retries);
  EXPECT_EQ(listener->half_open(), 0U);
  EXPECT_EQ(listener->next_deadline_ns(), kNever);
  EXPECT_EQ(counters.read(TcpCounter::syn_expired), 1U);
}

TEST_F(TcpListenerTest, repeated_syn_gets_the_same_answer) {
  give(syn());
  const OutSegment first = reply;
  now += 50 * kNsPerMs;
  expect(give(syn()), Action::reply, TcpCounter::syn_repeated);
  EXPECT_EQ(reply.seq, first.seq);
  EXPECT_EQ(listener->half_open(), 1U);
}

TEST_F(TcpListenerTest, other_syn_of_the_same_tuple_starts_over) {
  give(syn());
  TcpSegment again = syn();
  again.seq = SeqNum{5000};
  expect(give(again), Action::reply, TcpCounter::syn);
  EXPECT_EQ(reply.ack, SeqNum{5001});
  EXPECT_EQ(listener->half_open(), 1U);
}

TEST_F(TcpListenerTest, wrong_ack_of_a_handshake_is_reset) {
  give(syn());
  TcpSegment bad = ack_of(syn());
  bad.ack += 1;
  expect(give(bad), Action::reply, TcpCounter::handshake_bad_ack);
  EXPECT_EQ(reply.flags, tcp_flag::rst);
  EXPECT_EQ(reply.seq, bad.ack);
  EXPECT_EQ(listener->half_open(), 1U);
}

TEST_F(TcpListenerTest, half_open_connection_can_be_reset_but_only_exactly) {
  give(syn());
  TcpSegment r = syn();
  r.flags = tcp_flag::rst;
  r.seq = syn().seq + 2;
  expect(give(r), Action::none, TcpCounter::rst_ignored);
  EXPECT_EQ(listener->half_open(), 1U);
  r.seq = syn().seq + 1;
  expect(give(r), Action::none, TcpCounter::handshake_reset);
  EXPECT_EQ(listener->half_open(), 0U);
}

TEST_F(TcpListenerTest, nonsense_to_a_half_open_connection_is_ignored) {
  give(syn());
  const TcpSegment good = ack_of(syn());
  TcpSegment s = good;
  s.flags = 0;
  expect(give(s), Action::none, TcpCounter::handshake_ignored);
  s = good;
  s.flags = tcp_flag::syn | tcp_flag::ack;
  expect(give(s), Action::none, TcpCounter::handshake_ignored);
  s = good;
  s.seq += 100'000;
  expect(give(s), Action::none, TcpCounter::handshake_ignored);
  s = good;
  s.ts_val = 499;
  expect(give(s), Action::none, TcpCounter::paws_rejected);
  expect(give(good), Action::accept, TcpCounter::handshake_done);
}

// RFC 9293 section 3.10.7.1.
TEST_F(TcpListenerTest, unknown_segments_are_reset) {
  TcpSegment s = syn();
  s.flags = tcp_flag::ack;
  s.ack = SeqNum{77};
  s.payload_length = 10;
  expect(give(s), Action::reply, TcpCounter::no_connection);
  EXPECT_EQ(reply.flags, tcp_flag::rst);
  EXPECT_EQ(reply.seq, SeqNum{77});
  s.flags = tcp_flag::fin;
  ASSERT_TRUE(reset_for(s, reply));
  EXPECT_EQ(reply.flags, tcp_flag::rst | tcp_flag::ack);
  EXPECT_EQ(reply.seq, SeqNum{0});
  EXPECT_EQ(reply.ack, s.seq + 11);
  s.flags = tcp_flag::rst;
  EXPECT_FALSE(reset_for(s, reply));
  expect(give(s), Action::none, TcpCounter::no_connection_rst);
}

TEST_F(TcpListenerTest, syn_to_another_port_is_reset) {
  TcpSegment s = syn();
  s.tuple.local_port = 22;
  expect(listener->on_segment(s, nullptr, 10, now, reply, handshake), Action::reply,
         TcpCounter::no_connection);
  EXPECT_EQ(reply.flags, tcp_flag::rst | tcp_flag::ack);
  EXPECT_EQ(reply.ack, SeqNum{0});
}

TEST_F(TcpListenerTest, strangers_are_refused) {
  tenant.allow = {{Ipv4Address{0x0a4d0000}, 24}, {Ipv4Address{0xc0a80101}, 32}};
  make();
  expect(give(syn(1, 0x0a4d00fe)), Action::reply, TcpCounter::syn);
  expect(give(syn(1, 0xc0a80101)), Action::reply, TcpCounter::syn);
  for (const uint32_t stranger : {0x0a4d0101U, 0xc0a80102U, 0x01020304U}) {
    expect(give(syn(1, stranger)), Action::reply, TcpCounter::syn_refused_peer);
    EXPECT_EQ(reply.flags, tcp_flag::rst | tcp_flag::ack);
  }
  EXPECT_EQ(listener->half_open(), 2U);
}

TEST_F(TcpListenerTest, no_more_than_the_announced_connections) {
  expect(give(syn(), 0), Action::reply, TcpCounter::syn_refused_limit);
  EXPECT_EQ(reply.flags, tcp_flag::rst | tcp_flag::ack);
  give(syn());
  // The last place went to somebody else during the handshake.
  expect(give(ack_of(syn()), 0), Action::reply, TcpCounter::syn_refused_limit);
  EXPECT_EQ(reply.flags, tcp_flag::rst);
  EXPECT_EQ(listener->half_open(), 0U);
}

// RFC 6528 section 3.
TEST_F(TcpListenerTest, initial_sequences_differ_by_tuple_and_key_and_grow_with_time) {
  std::set<uint32_t> seen;
  for (uint16_t port = 1; port < 200; ++port)
    seen.insert(listener->initial_sequence(syn(port).tuple, now).value());
  EXPECT_EQ(seen.size(), 199U);
  const SeqNum first = listener->initial_sequence(syn().tuple, now);
  EXPECT_EQ(listener->initial_sequence(syn().tuple, now + kNsPerMs) - first, 250);  // 4 us a step
  config.secret.fill(8);
  make();
  EXPECT_NE(listener->initial_sequence(syn().tuple, now), first);
}

// ---- SYN flood, RFC 4987 ----

TEST_F(TcpListenerTest, flood_is_answered_by_cookies_without_state) {
  for (uint16_t port = 1; port <= 5000; ++port) give(syn(port, 0x0a4d1000U + port));
  EXPECT_EQ(listener->half_open(), 8U);
  EXPECT_EQ(counters.read(TcpCounter::syn_cookie_sent), 4992U);

  // An honest peer gets through with all its options.
  TcpSegment s = syn(50'000);
  s.window_scale = 9;
  expect(give(s), Action::reply, TcpCounter::syn_cookie_sent);
  now += 20 * kNsPerMs;
  expect(give(ack_of(s)), Action::accept, TcpCounter::handshake_done);
  EXPECT_EQ(handshake.irs, s.seq);
  EXPECT_EQ(handshake.send_mss, 1460);
  EXPECT_EQ(handshake.send_shift, 9);
  EXPECT_TRUE(handshake.sack && handshake.timestamps);
  EXPECT_EQ(handshake.receive_shift, 7);
  // What the connection stamps later must not lie before the cookie's stamp.
  EXPECT_GE(static_cast<int32_t>(timestamp_at(now, handshake.ts_offset) - reply.ts_val), 0);
}

TEST_F(TcpListenerTest, cookie_without_timestamps_keeps_the_mss_only) {
  for (uint16_t port = 1; port <= 100; ++port) give(syn(port, 0x0a4d1000U + port));
  TcpSegment s = syn(50'000);
  s.options = tcp_option::mss | tcp_option::window_scale | tcp_option::sack_permitted;
  s.mss = 1400;
  expect(give(s), Action::reply, TcpCounter::syn_cookie_sent);
  EXPECT_EQ(reply.options, tcp_option::mss);  // never promise what will be forgotten
  expect(give(ack_of(s)), Action::accept, TcpCounter::handshake_done);
  EXPECT_EQ(handshake.send_mss, 1360);
  EXPECT_FALSE(handshake.sack || handshake.timestamps);
}

TEST_F(TcpListenerTest, guessed_and_stale_cookies_are_refused) {
  for (uint16_t port = 1; port <= 100; ++port) give(syn(port, 0x0a4d1000U + port));
  const TcpSegment s = syn(50'000);
  give(s);
  const TcpSegment good = ack_of(s);
  TcpSegment bad = good;
  for (int bit = 8; bit < 32; ++bit) {
    bad.ack = SeqNum{((good.ack.value() - 1) ^ (1U << bit)) + 1};
    expect(give(bad), Action::none, TcpCounter::no_connection_doubtful);
  }
  bad = good;
  bad.tuple.remote_port = 50'001;
  expect(give(bad), Action::none, TcpCounter::no_connection_doubtful);
  bad = good;
  bad.seq += 1;
  expect(give(bad), Action::none, TcpCounter::no_connection_doubtful);
  now += 4 * 64 * kNsPerSecond;
  expect(give(good), Action::reply, TcpCounter::no_connection);
  // Nor while the flood goes on and fresh ones are believed.
  for (uint16_t port = 1; port <= 100; ++port) give(syn(port, 0x0a4d2000U + port));
  EXPECT_GT(counters.read(TcpCounter::syn_cookie_sent), 93U);
  expect(give(good), Action::none, TcpCounter::no_connection_doubtful);
}

// A stranger cannot open a connection by guessing when no cookie was ever given.
TEST_F(TcpListenerTest, cookies_are_not_believed_in_peace) {
  for (uint16_t port = 1; port <= 100; ++port) give(syn(port, 0x0a4d1000U + port));
  const TcpSegment s = syn(50'000);
  give(s);
  const TcpSegment a = ack_of(s);
  make();
  expect(give(a), Action::reply, TcpCounter::no_connection);
}

TEST_F(TcpListenerTest, without_cookies_the_oldest_goes) {
  config.syn_cookies = false;
  make();
  for (uint16_t port = 1; port <= 9; ++port) {
    expect(give(syn(port)), Action::reply, TcpCounter::syn);
    now += kNsPerMs;
  }
  EXPECT_EQ(listener->half_open(), 8U);
  EXPECT_EQ(counters.read(TcpCounter::syn_evicted), 1U);
  expect(give(syn(9)), Action::reply, TcpCounter::syn_repeated);
  expect(give(syn(2)), Action::reply, TcpCounter::syn_repeated);
}

// ---- Places go to those who speak ----

struct TcpListenerPlaces : TcpListenerTest {
  void SetUp() override {
    config.first_bytes_min = 4;
    tenant.places_reserved = 5;
    tenant.first_bytes_ns = 10 * kNsPerSecond;
    TcpListenerTest::SetUp();
  }
  TcpSegment data_of(const TcpSegment& s, uint32_t bytes, uint32_t beyond = 0) const {
    TcpSegment d = ack_of(s);
    d.seq += beyond;
    d.payload_length = bytes;
    return d;
  }
};

TEST_F(TcpListenerPlaces, a_silent_peer_takes_none_until_it_speaks) {
  expect(give(syn(), 0), Action::reply, TcpCounter::syn);
  now += 3 * kNsPerMs;
  expect(give(ack_of(syn()), 6), Action::none, TcpCounter::first_bytes_awaited);
  EXPECT_EQ(listener->half_open(), 1U);
  // The handshake is done: nothing is repeated.
  now += 2 * kNsPerSecond;
  OutSegment out;
  EXPECT_FALSE(listener->poll_output(now, out));
  // Too little, or not the beginning, while places are few; none at all.
  expect(give(data_of(syn(), 3), 5), Action::none, TcpCounter::first_bytes_awaited);
  expect(give(data_of(syn(), 1000, 1), 5), Action::none, TcpCounter::first_bytes_awaited);
  expect(give(data_of(syn(), 4), 0), Action::none, TcpCounter::first_bytes_dropped);
  expect(give(data_of(syn(), 4), 1), Action::accept, TcpCounter::handshake_done);
  EXPECT_EQ(handshake.rtt_ns, 3 * kNsPerMs);
  EXPECT_EQ(listener->half_open(), 0U);
}

// RFC 9293 section 3.8.4, with a byte and without.
TEST_F(TcpListenerPlaces, the_keepalive_of_a_silent_peer_is_answered) {
  give(syn());
  TcpSegment probe = ack_of(syn());
  const SeqNum next = probe.seq;
  expect(give(probe, 6), Action::none, TcpCounter::first_bytes_awaited);
  probe.seq = next - 1U;
  for (const uint16_t bytes : {uint16_t{0}, uint16_t{1}}) {
    probe.payload_length = bytes;
    expect(give(probe, 6), Action::reply, TcpCounter::keepalive_probe);
    EXPECT_EQ(reply.flags, tcp_flag::ack);
    EXPECT_EQ(reply.ack, next);
    EXPECT_EQ(reply.seq, probe.ack);
  }
  // Not with numbers that a stranger might guess.
  probe.ack += 1U;
  EXPECT_NE(give(probe, 6).fate, TcpCounter::keepalive_probe);
}

TEST_F(TcpListenerPlaces, any_byte_does_while_there_are_plenty) {
  give(syn());
  expect(give(data_of(syn(), 1), 6), Action::accept, TcpCounter::handshake_done);
  give(syn(7));
  expect(give(data_of(syn(7), 1, 1448), 6), Action::accept, TcpCounter::handshake_done);
}

// The preempt channel of a source in postcopy may say nothing for minutes.
TEST_F(TcpListenerPlaces, a_silent_peer_is_kept_where_that_is_asked_for) {
  give(syn());
  const TcpSegment late = data_of(syn(), 4);
  give(ack_of(syn()));
  listener->keep_silent(static_cast<uint16_t>(tenant.port + 1), 1000 * kNsPerSecond);  // another port's
  listener->keep_silent(tenant.port, 1000 * kNsPerSecond);
  OutSegment out;
  now += 500 * kNsPerSecond;
  EXPECT_FALSE(listener->poll_output(now, out));
  expect(give(late), Action::accept, TcpCounter::handshake_done);
}

TEST_F(TcpListenerPlaces, a_silent_peer_is_forgotten_after_its_time) {
  give(syn());
  const TcpSegment late = data_of(syn(), 4);
  give(ack_of(syn()));
  OutSegment out;
  now += tenant.first_bytes_ns - 1;
  EXPECT_FALSE(listener->poll_output(now, out));
  EXPECT_EQ(listener->half_open(), 1U);
  now += 1;
  EXPECT_FALSE(listener->poll_output(now, out));
  EXPECT_EQ(listener->half_open(), 0U);
  EXPECT_EQ(counters.read(TcpCounter::syn_expired), 1U);
  expect(give(late), Action::reply, TcpCounter::no_connection);
}

TEST_F(TcpListenerPlaces, it_is_known_who_has_been_silent_longest) {
  EXPECT_EQ(listener->silent_since_ns(tenant.port), kNever);
  const uint64_t first = now;
  give(syn(7));
  const TcpSegment late = data_of(syn(7), 4), ack = ack_of(syn(7));
  EXPECT_EQ(listener->silent_since_ns(tenant.port), kNever) << "half open: its address may be a forged one";
  now += 5;
  const uint64_t second = now;
  give(syn(8));
  now += 5;
  give(ack_of(syn(8)));
  EXPECT_EQ(listener->silent_since_ns(tenant.port), second);
  give(ack);
  EXPECT_EQ(listener->silent_since_ns(tenant.port), first);
  give(late);
  EXPECT_EQ(listener->silent_since_ns(tenant.port), second);
  TcpSegment rst = ack_of(syn(8));
  rst.flags = tcp_flag::rst;
  give(rst);
  EXPECT_EQ(listener->silent_since_ns(tenant.port), kNever);
}

TEST_F(TcpListenerPlaces, who_leaves_without_a_word_is_reset) {
  give(syn());
  TcpSegment fin = ack_of(syn());
  fin.flags |= tcp_flag::fin;
  fin.seq += 64;  // its bytes were lost on the way, and will come again
  expect(give(fin), Action::none, TcpCounter::first_bytes_awaited);
  fin.seq = fin.seq - 64;
  expect(give(fin), Action::reply, TcpCounter::handshake_reset);
  EXPECT_EQ(reply.flags, tcp_flag::rst);
  EXPECT_EQ(listener->half_open(), 0U);
}

// In a flood all entries are spent; the cookie holds until the first bytes come.
TEST_F(TcpListenerPlaces, a_cookie_holds_until_the_first_bytes_come) {
  for (uint16_t port = 1; port <= 100; ++port) give(syn(port, 0x0a4d1000U + port));
  std::vector<TcpSegment> firsts;
  for (uint16_t port = 50'000; port < 50'020; ++port) {
    expect(give(syn(port)), Action::reply, TcpCounter::syn_cookie_sent);
    firsts.push_back(data_of(syn(port), 4));
    expect(give(ack_of(syn(port))), Action::none, TcpCounter::first_bytes_awaited);
    EXPECT_EQ(listener->half_open(), 8U);
  }
  EXPECT_EQ(counters.read(TcpCounter::syn_evicted), 0U);
  for (const TcpSegment& first : firsts) {
    expect(give(first, 0), Action::none, TcpCounter::first_bytes_dropped);
    expect(give(first, 1), Action::accept, TcpCounter::handshake_done);
    EXPECT_EQ(handshake.irs, syn().seq);
    EXPECT_TRUE(handshake.sack && handshake.timestamps);
  }
  EXPECT_EQ(counters.read(TcpCounter::no_connection), 0U);
}

// Found by the simulation, seed 62229: a cookie's peer turned out an honest one whose ACK was under way.
TEST_F(TcpListenerPlaces, nobody_is_turned_out_for_a_peer_that_answered_a_cookie) {
  expect(give(syn(50'000)), Action::reply, TcpCounter::syn);
  const TcpSegment ack = ack_of(syn(50'000)), first = data_of(syn(50'000), 4);
  for (uint16_t port = 1; port <= 100; ++port) give(syn(port, 0x0a4d1000U + port));
  for (uint16_t port = 50'001; port < 50'020; ++port) {
    expect(give(syn(port)), Action::reply, TcpCounter::syn_cookie_sent);
    expect(give(ack_of(syn(port))), Action::none, TcpCounter::first_bytes_awaited);
  }
  expect(give(ack), Action::none, TcpCounter::first_bytes_awaited);
  expect(give(first, 1), Action::accept, TcpCounter::handshake_done);
}

// Found by the simulation, seed 62229: on another core's queue a segment overtook the one that showed the
// cookie, and its connection was reset.
TEST_F(TcpListenerPlaces, while_cookies_are_about_an_unknown_segment_with_bytes_is_dropped) {
  for (uint16_t port = 1; port <= 100; ++port) give(syn(port, 0x0a4d1000U + port));
  expect(give(syn(50'000)), Action::reply, TcpCounter::syn_cookie_sent);
  const TcpSegment first = data_of(syn(50'000), 100);
  TcpSegment second = first;
  second.seq += 100;
  expect(give(second), Action::none, TcpCounter::no_connection_doubtful);
  expect(give(first), Action::accept, TcpCounter::handshake_done);
  now += 3 * kNsPerSecond;
  expect(give(second), Action::reply, TcpCounter::no_connection);
  listener->set_cookies_in_flight_until_ns(now + 1);  // another core gave cookies out
  expect(give(second), Action::none, TcpCounter::no_connection_doubtful);
  listener->set_cookies_in_flight_until_ns(now);
  expect(give(second), Action::none, TcpCounter::no_connection_doubtful);
}

// Found by the simulation, seed 90000016, when floods met more frames on the wrong queue: the ACK of an
// honest handshake came by a core that knew neither its tuple nor a cookie.
TEST_F(TcpListenerPlaces, while_cookies_are_about_a_bare_acknowledgment_of_nobody_is_dropped) {
  expect(give(ack_of(syn(50'001))), Action::reply, TcpCounter::no_connection);
  for (uint16_t port = 1; port <= 100; ++port) give(syn(port, 0x0a4d1000U + port));
  expect(give(syn(50'000)), Action::reply, TcpCounter::syn_cookie_sent);
  expect(give(ack_of(syn(50'001))), Action::none, TcpCounter::no_connection_doubtful);
  now += 3 * kNsPerSecond;
  expect(give(ack_of(syn(50'001))), Action::reply, TcpCounter::no_connection);
}

// Found by soak, seed 1066: the operator ended a receiver while main, silent until its channels are there,
// was a half-open handshake; nobody told the source.
TEST_F(TcpListenerPlaces, half_open_peers_are_told_when_listening_ends) {
  give(syn(50'000));
  give(ack_of(syn(50'000)));
  give(syn(50'001));  // its SYN-ACK is on the way
  OutSegment rst;
  std::set<uint16_t> ports;
  while (listener->reset_one(tenant.port, rst)) {
    EXPECT_EQ(rst.flags, tcp_flag::rst | tcp_flag::ack);
    const TcpSegment ack = ack_of(syn(rst.tuple.remote_port));
    EXPECT_EQ(rst.ack, ack.seq);
    ports.insert(rst.tuple.remote_port);
  }
  EXPECT_EQ(ports, (std::set<uint16_t>{50'000, 50'001}));
  EXPECT_EQ(listener->half_open(), 0U);
  EXPECT_EQ(counters.read(TcpCounter::handshake_given_up), 2U);
}

TEST_F(TcpListenerPlaces, where_the_server_speaks_first_the_handshake_opens_the_connection) {
  tenant.server_speaks_first = true;
  give(syn());
  expect(give(ack_of(syn())), Action::accept, TcpCounter::handshake_done);
  EXPECT_EQ(listener->half_open(), 0U);
}

TEST_F(TcpListenerPlaces, where_the_server_speaks_first_a_peer_too_many_is_reset_at_once) {
  tenant.server_speaks_first = true;
  expect(give(syn(), 0), Action::reply, TcpCounter::syn_refused_limit);
  EXPECT_EQ(reply.flags & tcp_flag::rst, tcp_flag::rst);
  // And one whose place was taken during its handshake.
  give(syn());
  expect(give(ack_of(syn()), 0), Action::reply, TcpCounter::syn_refused_limit);
  EXPECT_EQ(reply.flags & tcp_flag::rst, tcp_flag::rst);
  EXPECT_EQ(listener->half_open(), 0U);
}

TEST_F(TcpListenerPlaces, where_the_server_speaks_first_a_cookie_is_enough) {
  tenant.server_speaks_first = true;
  for (uint16_t port = 1; port <= 8; ++port) give(syn(port));
  expect(give(syn(9)), Action::reply, TcpCounter::syn_cookie_sent);
  expect(give(ack_of(syn(9))), Action::accept, TcpCounter::handshake_done);
}

TEST_F(TcpListenerTest, syn_with_fin_is_ignored) {
  TcpSegment s = syn();
  s.flags |= tcp_flag::fin;
  expect(give(s), Action::none, TcpCounter::handshake_ignored);
  EXPECT_EQ(listener->half_open(), 0U);
}

}  // namespace
}  // namespace migrx

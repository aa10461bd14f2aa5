// What the window has promised has a place, in whatever segments it comes: RFC 9293 section 3.8.6 (a window
// that is not kept is one that shrank), dataplane/tcp/tail_buffer.h.
#include <random>

#include "tests/dataplane/tcp/script.h"

namespace migrx {
namespace {

// 7 buffers of which the window counts 6, and 1000 bytes fit into each.
ScriptOptions seven_buffers() {
  ScriptOptions options;
  options.slots = 8;
  options.rcv_wnd = 6000;
  options.buffer_room = 1000;
  return options;
}

// All that the loader gets when it goes on reading.
std::string drain(Script& peer) {
  std::string all;
  for (;;) {
    peer.forget_heard();
    const std::string got = peer.read(~0U);
    if (got.empty()) return all;
    all += got;
  }
}

TEST(TcpPromise, small_segments_are_put_together_when_buffers_run_short) {
  Script peer{seven_buffers()};
  for (uint32_t at = 1; at < 6001; at += 10) {
    ASSERT_EQ(peer.sends(data(at, stream(at, 10))), TcpCounter::in_order) << at;
    ASSERT_LE(peer.buffers_live(), 7U);
    peer.forget_heard();
  }
  EXPECT_EQ(peer.right_edge(), 6001U);
  EXPECT_EQ(peer.handoff().over_quota.read(), 0U);
  // All but the first in each of the seven buffers.
  peer.counted({{TcpCounter::put_together, 593}});
  EXPECT_EQ(drain(peer), stream(1, 6000));
  EXPECT_EQ(peer.buffers_live(), 0U);
}

TEST(TcpPromise, full_segments_are_never_copied) {
  Script peer{seven_buffers()};
  for (uint32_t i = 0; i < 6; ++i)
    EXPECT_EQ(peer.sends(data(1 + i * 1000, stream(1 + i * 1000, 1000))), TcpCounter::in_order);
  peer.counted({{TcpCounter::put_together, 0}});
  EXPECT_EQ(drain(peer), stream(1, 6000));
}

// The spare buffer is for that.
TEST(TcpPromise, neither_is_the_end_of_a_write_among_full_segments) {
  Script peer{seven_buffers()};
  uint32_t at = 1;
  for (const uint32_t length : {1000U, 300U, 1000U, 1000U, 1000U, 1000U, 700U}) {
    EXPECT_EQ(peer.sends(data(at, stream(at, length))), TcpCounter::in_order);
    at += length;
  }
  EXPECT_EQ(at, 6001U);
  peer.counted({{TcpCounter::put_together, 0}});
  EXPECT_EQ(drain(peer), stream(1, 6000));
}

// It may be what everybody waits for.
TEST(TcpPromise, a_loader_that_has_nothing_else_gets_what_there_is) {
  Script peer{seven_buffers()};
  peer.sends(data(1, "a"));
  peer.sends(data(2, "b"));
  peer.sends(data(3, "c"));
  peer.forget_heard();
  EXPECT_EQ(peer.read(~0U), "a");
  peer.forget_heard();
  EXPECT_EQ(peer.read(~0U), "bc");
  EXPECT_EQ(peer.sends(data(4, "d")), TcpCounter::in_order);
  peer.forget_heard();
  EXPECT_EQ(peer.read(~0U), "d");
}

// A remainder that begins far inside its buffer has less room behind it than a segment needs.
TEST(TcpPromise, the_rest_of_a_segment_moves_to_the_front_of_its_buffer) {
  Script peer{seven_buffers()};
  uint32_t at = 1;
  for (const uint32_t length : {8U, 8U, 1000U, 996U, 8U, 1000U, 996U, 8U, 1000U, 976U}) {
    EXPECT_EQ(peer.sends(data(at, stream(at, length))), TcpCounter::in_order) << at;
    at += length;
    peer.forget_heard();
  }
  EXPECT_EQ(at, 6001U);
  EXPECT_EQ(drain(peer), stream(1, 6000));
}

TEST(TcpPromise, fin_comes_behind_what_was_put_together) {
  Script peer{seven_buffers()};
  for (uint32_t at = 1; at < 6; ++at) peer.sends(data(at, stream(at, 1)));
  EXPECT_EQ(peer.sends(fin(6)), TcpCounter::fin);
  peer.delivered(stream(1, 5));
  peer.stream_end(StreamEnd::fin);
  peer.forget_heard();
}

TEST(TcpPromise, what_was_put_together_is_delivered_before_a_reset) {
  Script peer{seven_buffers()};
  for (uint32_t at = 1; at < 6; ++at) peer.sends(data(at, stream(at, 1)));
  EXPECT_EQ(peer.sends(rst(6)), TcpCounter::rst);
  peer.delivered(stream(1, 5));
  peer.stream_end(StreamEnd::reset);
}

TEST(TcpPromise, a_reader_that_leaves_leaves_no_buffer_behind) {
  Script peer{seven_buffers()};
  for (uint32_t at = 1; at < 6; ++at) peer.sends(data(at, stream(at, 1)));
  EXPECT_EQ(peer.buffers_live(), 2U);
  peer.handoff().detach();
  peer.forget_heard();
  peer.reclaim();
  peer.forget_heard();
  peer.reclaim();
  EXPECT_EQ(peer.buffers_live(), 0U);
}

TEST(TcpPromise, small_segments_beyond_a_hole_are_put_together_when_it_is_filled) {
  Script peer{seven_buffers()};
  peer.sends(data(1, "a"));
  for (uint32_t at = 3; at < 7; ++at)
    EXPECT_EQ(peer.sends(data(at, stream(at, 1))), TcpCounter::out_of_order);
  EXPECT_EQ(peer.buffers_live(), 5U);
  EXPECT_EQ(peer.sends(data(2, "b")), TcpCounter::in_order);
  peer.reclaim();
  EXPECT_EQ(peer.buffers_live(), 2U);
  EXPECT_EQ(drain(peer), "ab" + stream(3, 4));
}

// Any sizes, any quota, a loader that sleeps: nothing in order is ever refused, and no byte differs.
TEST(TcpPromise, nothing_in_order_is_ever_refused) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random{seed};
    const auto pick = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    ScriptOptions options;
    options.mss = 200;
    options.slots = 256;
    options.timestamps = pick(2) == 0;
    options.slice_bytes = pick(3) == 0 ? 64 : 0;  // a frame in several packet buffers
    options.buffer_room = options.slice_bytes == 0 ? 200 + pick(300) : 64;
    options.config.buffer_bytes = options.slice_bytes == 0 ? 2048 : 64;
    TcpConfig sized = options.config;
    sized.mss = options.mss;
    options.config.buffer_quota = buffer_quota_min(sized) + pick(60);
    const uint32_t payload_max = options.timestamps ? 188 : 200;
    options.rcv_wnd = window_for(sized, options.config.buffer_quota, payload_max);
    Script peer{options};
    const uint32_t usual = 1 + pick(payload_max);
    uint32_t delivered = 0;
    uint32_t sent = 0;
    while (delivered < 20'000) {
      const uint32_t room = peer.right_edge() - 1 - sent;
      const uint32_t wanted = pick(3) == 0 ? 1 + pick(payload_max) : pick(4) == 0 ? payload_max : usual;
      if (const uint32_t n = std::min(wanted, room); n > 0) {
        ASSERT_EQ(peer.sends(data(1 + sent, stream(1 + sent, n))), TcpCounter::in_order) << sent;
        sent += n;
      }
      ASSERT_LE(peer.buffers_live(), peer.connection.quota());
      if (pick(4) == 0) peer.forget_heard();  // the end of a burst
      if (room > 0 && pick(40) != 0) continue;
      peer.forget_heard();
      const std::string got = peer.read(1 + pick(8));
      ASSERT_FALSE(got.empty() && room == 0) << "a loader that reads gets something";
      ASSERT_EQ(got, stream(1 + delivered, static_cast<uint32_t>(got.size())));
      delivered += static_cast<uint32_t>(got.size());
      peer.forget_heard();
    }
    EXPECT_EQ(peer.handoff().over_quota.read(), 0U);
  }
}

}  // namespace
}  // namespace migrx

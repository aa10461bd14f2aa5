// What no script thought of: random segments against a byte-wise oracle, and an honest sender over a bad
// link.
#include <random>

#include "tests/dataplane/tcp/script.h"

namespace migrx {
namespace {

// Anything at all, near the window. Whatever the peer does: bytes are delivered in order and once, the right
// edge never moves back, no buffer is lost, output ends, and the quota holds.
TEST(TcpRandom, arbitrary_segments_break_no_promise) {
  for (uint32_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random{seed};
    const auto pick = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    ScriptOptions options;
    options.slots = 8U << pick(3);
    options.rcv_wnd = 500 + pick(4000);
    options.mss = 100;
    options.timestamps = pick(2) == 0;
    options.sack = pick(3) != 0;
    options.slice_bytes = pick(2) == 0 ? 0 : 1 + pick(60);
    options.config.challenge_acks_per_second = 5;
    Script peer{options};
    peer.stops_acking();
    uint32_t delivered = 0;
    SeqNum edge = peer.connection.right_edge();
    uint64_t t = 0;
    for (int step = 0; step < 400; ++step) {
      const uint32_t rcv_nxt = bytes_between(options.irs, peer.connection.rcv_nxt());
      Seg s;
      s.seq(rcv_nxt + pick(600) - 200);
      if (pick(3) == 0) s.seq(rcv_nxt);
      if (pick(100) == 0) s.seq(static_cast<uint32_t>(random()));
      if (pick(4) != 0) s.payload = stream(*s.seq_, pick(150));
      if (pick(200) == 0) s.flags = static_cast<uint8_t>(random());
      if (pick(20) == 0) s.flags |= tcp_flag::psh;
      if (pick(200) == 0) s.flags |= tcp_flag::fin;
      if (pick(30) == 0 && *s.seq_ != rcv_nxt) s.flags |= tcp_flag::rst;
      s.ack(1 + pick(3) * pick(60));
      if (pick(50) == 0) s.ack(static_cast<uint32_t>(random()));
      if (pick(10) == 0) s.window(pick(300));
      if (options.timestamps && pick(20) == 0) s.ts(static_cast<uint32_t>(random()));
      if (options.timestamps && pick(50) == 0) s.no_timestamp();
      peer.sends(s);
      if (pick(20) == 0) static_cast<void>(peer.connection.send(std::as_bytes(std::span{"some reply"})));
      if (pick(500) == 0) peer.we_close();
      ASSERT_GE(peer.connection.right_edge(), edge);
      edge = peer.connection.right_edge();
      ASSERT_LE(peer.handoff().held(), peer.connection.quota() + 1);  // and the end marker
      if (pick(3) == 0) {
        peer.forget_heard();
        const std::string got = peer.read(1 + pick(10));
        ASSERT_EQ(got, stream(1 + delivered, static_cast<uint32_t>(got.size())));
        delivered += static_cast<uint32_t>(got.size());
      }
      if (pick(10) == 0) peer.at(std::chrono::milliseconds{t += pick(100)});
      if (testing::Test::HasFatalFailure()) return;
    }
    peer.forget_heard();
    const std::string rest = peer.read(~0U);
    ASSERT_EQ(rest, stream(1 + delivered, static_cast<uint32_t>(rest.size())));
  }
}

// A plain go-back-N sender with a retransmission timer over a link that loses, doubles and reorders, and a
// loader that sleeps at times. At any quota not below the stated minimum everything arrives, in bounded time.
TEST(TcpRandom, honest_sender_always_finishes) {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random{seed};
    const auto pick = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    ScriptOptions options;
    options.mss = 200;
    options.timestamps = pick(2) == 0;
    options.slots = 64;
    options.slice_bytes = pick(2) == 0 ? 0 : 64;
    options.config.buffer_bytes = options.slice_bytes == 0 ? 2048 : 64;
    TcpConfig sized = options.config;
    sized.mss = options.mss;
    options.config.buffer_quota = buffer_quota_min(sized) + pick(20);
    options.rcv_wnd = std::max(window_for(sized, options.config.buffer_quota, options.mss), 400U);
    Script peer{options};
    const uint32_t total = 20'000;
    const uint32_t piece =
        pick(4) == 0 ? 1 + pick(30) : 200 - (options.timestamps ? 12 : 0);  // tiny ones too
    uint32_t delivered = 0;
    uint32_t turns = 0;
    std::vector<Seg> link;
    for (uint64_t ms = 0; delivered < total; ms += 10) {
      ASSERT_LT(++turns, 60'000U) << "no progress at " << delivered;
      peer.at(std::chrono::milliseconds{ms});
      // Go back to what is not acknowledged, up to the right edge.
      const uint32_t una = bytes_between(options.irs, peer.connection.rcv_nxt());
      for (uint32_t seq = una; seq <= total && seq < una + 2000;) {
        const uint32_t room = bytes_between(SeqNum{seq}, SeqNum{peer.right_edge()});
        const uint32_t n = std::min({piece, total + 1 - seq, room > 0x7fff'ffff ? 0U : room});
        link.push_back(n == 0 ? Seg{}.seq(seq - 1) : data(seq, stream(seq, n)));
        if (n == 0) break;
        seq += n;
      }
      std::vector<Seg> later;
      for (Seg& s : link) {
        const uint32_t fate = pick(10);
        if (fate == 0) continue;
        if (fate == 1) {
          later.push_back(s);
          continue;
        }
        if (fate == 2) later.push_back(s);
        peer.sends(s);
        if (testing::Test::HasFailure()) return;
      }
      link = std::move(later);
      peer.forget_heard();
      if (pick(3) != 0) continue;  // the loader sleeps
      const std::string got = peer.read(1 + pick(20));
      ASSERT_EQ(got, stream(1 + delivered, static_cast<uint32_t>(got.size())));
      delivered += static_cast<uint32_t>(got.size());
    }
  }
}

}  // namespace
}  // namespace migrx

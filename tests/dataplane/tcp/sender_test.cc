// The bulk sender: scripts for each rule, and whole streams over a bad link to a plain receiver.
#include "dataplane/tcp/sender.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/link.h"

namespace migrx {
namespace {

constexpr uint64_t kMs = kNsPerMs;
constexpr uint32_t kIss = 0xffff'ff00;  // the numbers wrap early
constexpr uint32_t kIrs = 5000;

// One sender and the numbers of its peer. Offsets are the stream's.
class Rig {
 public:
  explicit Rig(TcpSenderConfig config = {}, bool sack = true, uint32_t window = 1 << 20)
      : sender(config, FourTuple{Ipv4Address{1}, Ipv4Address{2}, 4444, 5555}, {}, SeqNum{kIss}, 7),
        window_(window) {
    sender.connect(now);
    EXPECT_TRUE(next());
    EXPECT_EQ(out.flags, tcp_flag::syn);
    EXPECT_EQ(out.seq, SeqNum{kIss});
    TcpSegment answer = segment(tcp_flag::syn | tcp_flag::ack, 0);
    answer.seq = SeqNum{kIrs};
    answer.options |= tcp_option::mss | tcp_option::window_scale;
    if (sack) answer.options |= tcp_option::sack_permitted;
    answer.mss = 1012;
    answer.window_scale = 8;
    answer.window = 65535;
    static_cast<void>(sender.on_segment(answer, {}, now));
    EXPECT_EQ(sender.state(), TcpSender::State::established);
    EXPECT_TRUE(next());  // the handshake's last acknowledgment
    EXPECT_EQ(out.flags, tcp_flag::ack);
    hears_ack(0);
  }

  bool next() { return sender.next_segment(now, out, chunk); }
  // Everything the sender has to say now; returns the chunks.
  std::vector<StreamRange> drain() {
    std::vector<StreamRange> all;
    while (next())
      if (chunk.end > chunk.begin) all.push_back(chunk);
    return all;
  }
  void at(uint64_t ns) {
    now = ns;
    sender.on_time(now);
  }
  TcpSegment segment(uint8_t flags, uint64_t ack_offset) const {
    TcpSegment s;
    s.seq = SeqNum{kIrs + 1};
    s.ack = SeqNum{kIss} + 1U + static_cast<uint32_t>(ack_offset);
    s.flags = flags;
    s.window = static_cast<uint16_t>(window_ >> 8);
    s.options = tcp_option::timestamps;
    s.ts_val = static_cast<uint32_t>(now / kMs);
    return s;
  }
  void hears_ack(uint64_t offset, std::vector<StreamRange> sacked = {}) {
    TcpSegment s = segment(tcp_flag::ack, offset);
    for (const StreamRange& r : sacked)
      s.sack[s.sack_count++] = {SeqNum{kIss} + 1U + static_cast<uint32_t>(r.begin),
                                SeqNum{kIss} + 1U + static_cast<uint32_t>(r.end)};
    static_cast<void>(sender.on_segment(s, {}, now));
  }
  void window(uint32_t bytes) { window_ = bytes; }

  uint64_t now = 1000 * kMs;
  TcpSender sender;
  OutSegment out;
  StreamRange chunk;

 private:
  uint32_t window_;
};

TEST(TcpSender, announces_options_and_fills_the_initial_window) {
  Rig peer;
  EXPECT_EQ(peer.sender.segment_bytes(), 1000U);  // the peer's MSS less timestamps
  peer.sender.set_stream_end(100'000);
  const auto sent = peer.drain();
  ASSERT_EQ(sent.size(), 10U);
  EXPECT_EQ(sent.back().end, 10'000U);
}

TEST(TcpSender, slow_start_doubles_and_congestion_avoidance_adds_one_segment) {
  Rig peer;
  peer.sender.set_stream_end(10'000'000);
  EXPECT_EQ(peer.drain().size(), 10U);
  peer.now += kMs;
  peer.hears_ack(10'000);
  EXPECT_EQ(peer.drain().size(), 20U);
  // Segment 10 is lost; those behind it arrive.
  peer.now += kMs;
  peer.hears_ack(10'000, {{11'000, 30'000}});
  EXPECT_EQ(peer.sender.cwnd(), 10'000U);  // half of what was on its way
  const auto again = peer.drain();
  ASSERT_GE(again.size(), 1U);
  EXPECT_EQ(again.front().begin, 10'000U);
  EXPECT_EQ(again.size(), 10U);  // pipe is the repetition alone, so nine new ones
  peer.now += kMs;
  peer.hears_ack(30'000);
  peer.drain();
  const uint64_t before = peer.sender.cwnd();
  peer.now += kMs;
  peer.hears_ack(39'000);
  peer.drain();
  peer.now += kMs;
  peer.hears_ack(peer.sender.sent());
  EXPECT_EQ(peer.sender.cwnd(), before + 1000);
  EXPECT_EQ(peer.sender.counters().fast_recoveries, 1U);
}

TEST(TcpSender, without_sack_three_duplicates_repeat_the_first_segment) {
  Rig peer({}, false);
  peer.sender.set_stream_end(10'000);
  EXPECT_EQ(peer.drain().size(), 10U);
  peer.hears_ack(0);
  peer.hears_ack(0);
  EXPECT_TRUE(peer.drain().empty());
  peer.hears_ack(0);
  const auto again = peer.drain();
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].begin, 0U);
  // A partial acknowledgment names the next hole (RFC 6582).
  peer.hears_ack(4000);
  const auto next_hole = peer.drain();
  ASSERT_EQ(next_hole.size(), 1U);
  EXPECT_EQ(next_hole[0].begin, 4000U);
}

TEST(TcpSender, timer_repeats_from_the_first_and_backs_off) {
  Rig peer;
  peer.sender.set_stream_end(3000);
  EXPECT_EQ(peer.drain().size(), 3U);
  const uint64_t started = peer.now;
  // The tail loss probe comes first: the last segment, once.
  peer.at(started + 10 * kMs);
  auto probe = peer.drain();
  ASSERT_EQ(probe.size(), 1U);
  EXPECT_EQ(probe[0].begin, 2000U);
  peer.at(started + 199 * kMs);
  EXPECT_TRUE(peer.drain().empty());
  peer.at(started + 200 * kMs);
  auto first = peer.drain();
  ASSERT_EQ(first.size(), 1U);  // one segment is the whole window now
  EXPECT_EQ(first[0].begin, 0U);
  peer.at(started + 599 * kMs);
  EXPECT_TRUE(peer.drain().empty());
  peer.at(started + 600 * kMs);
  EXPECT_EQ(peer.drain().size(), 1U);
  peer.hears_ack(1000);
  EXPECT_EQ(peer.drain().size(), 1U);
  EXPECT_EQ(peer.sender.counters().timeouts, 2U);
}

TEST(TcpSender, a_closed_window_is_probed_with_an_old_number) {
  Rig peer({}, true, 2560);
  peer.sender.set_stream_end(10'000);
  EXPECT_EQ(peer.drain().size(), 2U);  // 560 more bytes would be a silly segment
  peer.window(0);
  peer.hears_ack(2000);
  EXPECT_TRUE(peer.drain().empty());
  peer.at(peer.sender.deadline_ns());
  ASSERT_TRUE(peer.next());
  EXPECT_EQ(peer.out.seq, SeqNum{kIss} + 2000U);
  EXPECT_EQ(peer.chunk.end, peer.chunk.begin);
  EXPECT_FALSE(peer.next());
  peer.window(65536);
  peer.hears_ack(2000);
  EXPECT_EQ(peer.drain().size(), 8U);
  EXPECT_EQ(peer.sender.counters().window_probes, 1U);
}

TEST(TcpSender, fin_counts_one_and_is_repeated) {
  Rig peer;
  peer.sender.set_stream_end(500);
  peer.sender.close();
  ASSERT_TRUE(peer.next());
  EXPECT_EQ(peer.chunk.end, 500U);
  EXPECT_EQ(peer.out.flags & tcp_flag::fin, 0);
  ASSERT_TRUE(peer.next());
  EXPECT_NE(peer.out.flags & tcp_flag::fin, 0);
  peer.hears_ack(500);
  EXPECT_EQ(peer.sender.state(), TcpSender::State::established);
  peer.at(peer.now + 400 * kMs);
  ASSERT_TRUE(peer.next());
  EXPECT_NE(peer.out.flags & tcp_flag::fin, 0);
  peer.hears_ack(501);
  EXPECT_EQ(peer.sender.state(), TcpSender::State::finished);
  EXPECT_EQ(peer.sender.acknowledged(), 500U);
}

TEST(TcpSender, bytes_of_the_peer_come_once_and_in_order) {
  Rig peer;
  const std::string text = "PONGPONG";
  const Bytes bytes = std::as_bytes(std::span{text});
  TcpSegment s = peer.segment(tcp_flag::ack, 0);
  s.payload_length = 4;
  EXPECT_EQ(peer.sender.on_segment(s, bytes.first(4), peer.now).size(), 4U);
  EXPECT_TRUE(peer.next());
  EXPECT_EQ(peer.out.ack, SeqNum{kIrs + 5});
  s.payload_length = 8;  // the first half again
  const Bytes fresh = peer.sender.on_segment(s, bytes, peer.now);
  ASSERT_EQ(fresh.size(), 4U);
  EXPECT_EQ(fresh.data(), bytes.data() + 4);
  s.seq = SeqNum{kIrs + 20};
  EXPECT_TRUE(peer.sender.on_segment(s, bytes, peer.now).empty());
}

TEST(TcpSender, forged_segments_change_nothing) {
  Rig peer;
  peer.sender.set_stream_end(5000);
  peer.drain();
  TcpSegment s = peer.segment(tcp_flag::rst, 0);
  s.seq = s.seq + 1U;  // in the window, not exact: RFC 5961
  static_cast<void>(peer.sender.on_segment(s, {}, peer.now));
  EXPECT_EQ(peer.sender.state(), TcpSender::State::established);
  EXPECT_TRUE(peer.next());               // asked back
  s = peer.segment(tcp_flag::ack, 6000);  // never sent
  static_cast<void>(peer.sender.on_segment(s, {}, peer.now));
  EXPECT_EQ(peer.sender.acknowledged(), 0U);
  peer.hears_ack(0, {{4000, 9000}});  // nor this
  EXPECT_EQ(peer.sender.in_flight(), 5000U);
  s = peer.segment(tcp_flag::syn, 0);
  static_cast<void>(peer.sender.on_segment(s, {}, peer.now));
  EXPECT_EQ(peer.sender.state(), TcpSender::State::established);
  s = peer.segment(tcp_flag::rst, 0);
  static_cast<void>(peer.sender.on_segment(s, {}, peer.now));
  EXPECT_EQ(peer.sender.state(), TcpSender::State::reset);
}

TEST(TcpSender, gives_up_on_a_silent_peer) {
  TcpSenderConfig config;
  config.give_up_ns = 5 * kNsPerSecond;
  Rig peer(config);
  peer.sender.set_stream_end(1000);
  for (int turn = 0; turn < 50 && !peer.sender.over(); ++turn) {
    peer.drain();
    peer.at(peer.sender.deadline_ns());
  }
  EXPECT_EQ(peer.sender.state(), TcpSender::State::timed_out);
  EXPECT_LT(peer.now, 20 * kNsPerSecond);
}

// A receiver by the letter: a map of ranges, an acknowledgment per segment with up to three SACK blocks.
class PlainReceiver {
 public:
  explicit PlainReceiver(uint32_t window) : window_(window) {}
  std::optional<TcpSegment> on(const TcpSegment& s, uint64_t now) {
    TcpSegment answer;
    answer.flags = tcp_flag::ack;
    answer.options = tcp_option::timestamps;
    answer.ts_val = static_cast<uint32_t>(now / kMs);
    answer.seq = SeqNum{kIrs + 1};
    if (s.has(tcp_flag::syn)) {
      isn_ = s.seq;
      answer.seq = SeqNum{kIrs};
      answer.flags |= tcp_flag::syn;
      answer.options |= tcp_option::mss | tcp_option::sack_permitted | tcp_option::window_scale;
      answer.mss = 1460;
      answer.window_scale = 8;
      answer.window = 65535;
      answer.ack = isn_ + 1U;
      return answer;
    }
    const auto begin = static_cast<uint64_t>(
        next_ +
        static_cast<uint64_t>(static_cast<int64_t>(s.seq - (isn_ + 1U + static_cast<uint32_t>(next_)))));
    const uint64_t end = begin + s.length();
    StreamRange newest{begin, end};
    if (s.has(tcp_flag::fin)) fin_at = end - 1;
    if (s.length() > 0 && end > next_) held_[begin] = std::max(held_[begin], end);
    // Merge.
    for (auto i = held_.begin(); i != held_.end();) {
      auto after = std::next(i);
      if (after != held_.end() && after->first <= i->second) {
        i->second = std::max(i->second, after->second);
        held_.erase(after);
      } else {
        i = after;
      }
    }
    while (!held_.empty() && held_.begin()->first <= next_) {
      next_ = std::max(next_, held_.begin()->second);
      held_.erase(held_.begin());
    }
    if (s.length() == 0 && begin >= next_) return std::nullopt;
    answer.ack = isn_ + 1U + static_cast<uint32_t>(next_);
    answer.window = static_cast<uint16_t>(window_ >> 8);
    const auto add = [&](uint64_t from, uint64_t to) {
      if (answer.sack_count < 3)
        answer.sack[answer.sack_count++] = {isn_ + 1U + static_cast<uint32_t>(from),
                                            isn_ + 1U + static_cast<uint32_t>(to)};
    };
    for (const auto& [from, to] : held_)  // the block of this segment first, RFC 2018 section 4
      if (from <= newest.begin && newest.begin < to) add(from, to);
    for (const auto& [from, to] : held_)
      if (!(from <= newest.begin && newest.begin < to)) add(from, to);
    return answer;
  }
  [[nodiscard]] uint64_t next() const { return next_; }
  std::optional<uint64_t> fin_at;

 private:
  uint32_t window_;
  SeqNum isn_;
  uint64_t next_ = 0;
  std::map<uint64_t, uint64_t> held_;
};

struct Outcome {
  uint64_t ns = 0;
  TcpSenderCounters counters;
};

// `bytes` of a stream over a link with these faults in both directions; frames are real ones, so that offsets
// are seen by their content: each payload byte is a function of its offset.
Outcome run(uint64_t bytes, const sim::LinkOptions& options, uint64_t seed) {
  sim::Random random(seed);
  sim::Link there(options, random.fork());
  sim::Link back(options, random.fork());
  const FourTuple tuple{Ipv4Address{0x0a000002}, Ipv4Address{0x0a000001}, 4444, 5555};
  TcpSender sender({}, tuple, {}, SeqNum{kIss}, 0);
  PlainReceiver receiver(1 << 20);
  uint64_t now = kMs;
  const uint64_t begun = now;
  sender.connect(now);
  sender.set_stream_end(bytes);
  sender.close();
  const auto byte_at = [](uint64_t offset) { return static_cast<std::byte>(offset * 31 + offset / 251); };
  uint64_t turns = 0;
  while (sender.state() != TcpSender::State::finished) {
    if (sender.over() || ++turns > 3'000'000) {
      ADD_FAILURE() << "seed " << seed << ": state " << static_cast<int>(sender.state()) << " at "
                    << sender.acknowledged() << " of " << bytes;
      break;
    }
    sender.on_time(now);
    OutSegment out;
    StreamRange chunk;
    while (sender.next_segment(now, out, chunk)) {
      std::vector<std::byte> payload;
      for (uint64_t i = chunk.begin; i < chunk.end; ++i) payload.push_back(byte_at(i));
      out.payload = payload;
      sim::Packet packet(kHeaderBytesMax + payload.size());
      packet.resize(build_segment(out, packet, TxChecksum::full));
      there.send(std::move(packet), now);
    }
    now = std::max(now, std::min({there.next_ns(), back.next_ns(), sender.deadline_ns()}));
    sim::Packet packet;
    bool damaged = false;
    while (there.receive(now, packet, damaged)) {
      TcpSegment segment;
      if (damaged ||
          parse_segment(packet, static_cast<uint32_t>(packet.size()), segment) != WireCounter::segment_ok)
        continue;
      const Bytes payload = Bytes{packet}.subspan(segment.payload_offset, segment.payload_length);
      const uint32_t offset = bytes_between(SeqNum{kIss} + 1U, segment.seq);
      for (std::size_t i = 0; i < payload.size(); ++i)
        if (payload[i] != byte_at(offset + i)) ADD_FAILURE() << "wrong byte at " << offset + i;
      const std::optional<TcpSegment> answer = receiver.on(segment, now);
      if (!answer) continue;
      OutSegment reply;
      reply.tuple = {tuple.local_ip, tuple.remote_ip, tuple.local_port, tuple.remote_port};
      reply.seq = answer->seq;
      reply.ack = answer->ack;
      reply.flags = answer->flags;
      reply.options = answer->options;
      reply.window = answer->window;
      reply.window_scale = answer->window_scale;
      reply.mss = answer->mss;
      reply.ts_val = answer->ts_val;
      reply.sack_count = answer->sack_count;
      reply.sack = answer->sack;
      sim::Packet frame(kHeaderBytesMax);
      frame.resize(build_segment(reply, frame, TxChecksum::full));
      back.send(std::move(frame), now);
    }
    while (back.receive(now, packet, damaged)) {
      TcpSegment segment;
      if (damaged ||
          parse_segment(packet, static_cast<uint32_t>(packet.size()), segment) != WireCounter::segment_ok)
        continue;
      static_cast<void>(sender.on_segment(segment, {}, now));
    }
  }
  EXPECT_EQ(receiver.next(), bytes + 1);
  EXPECT_EQ(receiver.fin_at, bytes);
  return {now - begun, sender.counters()};
}

TEST(TcpSenderLink, a_clean_link_sees_nothing_twice_and_is_filled) {
  sim::LinkOptions options;
  options.delay_ns = 50'000;
  const Outcome outcome = run(20'000'000, options, 1);
  // 10 Gbit/s with a queue of 2 ms: slow start fills it, loses once, and goes on.
  EXPECT_LT(outcome.ns, 40 * kMs);
  EXPECT_EQ(outcome.counters.timeouts, 0U);
}

TEST(TcpSenderLink, loss_is_repaired_without_the_timer) {
  sim::LinkOptions options;
  options.delay_ns = 50'000;
  options.loss = 0.01;
  uint64_t timeouts = 0;
  uint64_t resent = 0;
  uint64_t segments = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const Outcome outcome = run(5'000'000, options, seed);
    timeouts += outcome.counters.timeouts;
    resent += outcome.counters.resent_segments;
    segments += outcome.counters.segments;
    EXPECT_LT(outcome.ns, 2 * kNsPerSecond) << seed;
  }
  EXPECT_LE(timeouts, 5U);
  EXPECT_GT(resent, segments / 200);
  EXPECT_LT(resent, segments / 30);  // not much more than was lost
}

TEST(TcpSenderLink, any_fault_delays_but_never_damages) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    sim::LinkOptions options;
    options.delay_ns = 20'000 + seed * 10'000;
    options.loss = 0.02 * static_cast<double>(seed % 4);
    options.duplicate = 0.02;
    options.reorder = 0.05;
    options.corrupt = 0.005;
    static_cast<void>(run(600'000, options, seed));
  }
}

TEST(TcpSenderLink, reordering_alone_costs_few_repetitions) {
  sim::LinkOptions options;
  options.delay_ns = 100'000;
  options.reorder = 0.01;
  options.reorder_ns = 2'000;  // one or two frames' time
  const Outcome outcome = run(3'000'000, options, 3);
  EXPECT_LT(outcome.counters.resent_segments, outcome.counters.segments / 20);
}

}  // namespace
}  // namespace migrx

// Scripts of segments in the manner of packetdrill: what the peer sends, then what it must hear and what the
// loader must get. Numbers are relative: the peer's first byte is 1, and so is ours. Every segment goes
// through build_segment() and parse_segment(); every packet buffer is accounted for when the script ends.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/tcp/connection.h"

namespace migrx {

using namespace std::chrono_literals;

// A segment in relative numbers: to be sent, or expected. Unset fields take defaults when sent, and are not
// compared when expected.
struct Seg {
  uint8_t flags = tcp_flag::ack;
  std::optional<uint32_t> seq_;
  std::optional<uint32_t> ack_;
  std::optional<uint32_t> window_;  // in bytes when expected, as on the wire when sent
  std::optional<uint32_t> ts_;
  std::optional<uint32_t> ecr_;
  std::optional<std::vector<std::pair<uint32_t, uint32_t>>> sack_;
  std::string payload;
  bool no_timestamp_ = false;

  Seg& seq(uint32_t v) { return seq_ = v, *this; }
  Seg& ack(uint32_t v) { return ack_ = v, *this; }
  Seg& window(uint32_t v) { return window_ = v, *this; }
  Seg& ts(uint32_t v) { return ts_ = v, *this; }
  Seg& ecr(uint32_t v) { return ecr_ = v, *this; }
  Seg& no_timestamp() { return no_timestamp_ = true, *this; }
  Seg& push() { return flags |= tcp_flag::psh, *this; }
  Seg& urgent() { return flags |= tcp_flag::urg, *this; }
  Seg& fin() { return flags |= tcp_flag::fin, *this; }
  Seg& without_ack() { return flags &= static_cast<uint8_t>(~tcp_flag::ack), *this; }
  Seg& sack(uint32_t begin, uint32_t end) {
    if (!sack_) sack_.emplace();
    sack_->emplace_back(begin, end);
    return *this;
  }
  Seg& no_sack() { return sack_.emplace(), *this; }
};
inline Seg flagged(uint8_t flags) {
  Seg s;
  s.flags = flags;
  return s;
}
inline Seg data(uint32_t seq, std::string_view text) {
  Seg s;
  s.seq(seq).payload = text;
  return s;
}
inline Seg ack(uint32_t v) {
  return Seg{}.ack(v);
}
inline Seg fin(uint32_t seq) {
  return Seg{}.seq(seq).fin();
}
inline Seg rst(uint32_t seq) {
  return flagged(tcp_flag::rst).seq(seq);
}
inline Seg syn(uint32_t seq) {
  return flagged(tcp_flag::syn).seq(seq);
}

struct ScriptOptions {
  SeqNum irs{0xffff'fffb};
  SeqNum iss{0xffff'fff0};
  uint32_t rcv_wnd = 65536;
  uint32_t syn_wnd = 0;  // announced with SYN-ACK; 0: as much of rcv_wnd as can be
  uint32_t snd_wnd = 65535;
  uint32_t slots = 64;  // rounded up to a power of two, minus one, by Handoff
  uint16_t mss = 1000;
  uint8_t scale = 0;
  uint64_t rtt_ns = 0;  // of the handshake
  bool timestamps = false;
  bool sack = true;
  uint32_t slice_bytes = 0;  // cut payloads into packet buffers of this size; 0: one buffer
  // What fits into each packet buffer from its first payload byte on, which may be written; 0: as much as
  // came, and nobody may write there.
  uint32_t buffer_room = 0;
  TcpConfig config{};
};

// A connection with nothing special about it.
inline ScriptOptions established() {
  return {};
}

inline std::string text(std::size_t n, char c = 'x') {
  return std::string(n, c);
}

// Of a stream whose bytes tell where they belong.
inline char byte_at(uint32_t offset) {
  return static_cast<char>('a' + (offset * 7 + offset / 26) % 26);
}
inline std::string stream(uint32_t begin, uint32_t length) {
  std::string s(length, ' ');
  for (uint32_t i = 0; i < length; ++i) s[i] = byte_at(begin + i);
  return s;
}

class Script {
 public:
  using Ns = std::chrono::nanoseconds;
  static constexpr uint64_t kStartNs = 5 * kNsPerSecond;

  explicit Script(const ScriptOptions& options)
      : options_(options), config_(make_config(options)), handoff_(options.slots) {
    TcpHandshake h;
    h.tuple = {Ipv4Address{0x0a4d0001}, Ipv4Address{0x0a4d0002}, 45678, 4444};
    h.irs = options.irs;
    h.iss = options.iss;
    h.send_mss = options.mss;
    h.receive_shift = options.scale;
    h.timestamps = options.timestamps;
    h.sack = options.sack;
    h.ts_recent = 1000;
    h.send_window = options.snd_wnd;
    h.receive_window =
        options.syn_wnd > 0 ? options.syn_wnd : std::min(options.rcv_wnd, 65535U << options.scale);
    h.rtt_ns = options.rtt_ns;
    connection.open(h, now_);
  }
  ~Script() {
    if (!connection.finished()) connection.abort();
    handoff_.detach();
    handoff_.retire();
    collect();
    reclaim();
    EXPECT_TRUE(connection.recyclable());
    EXPECT_TRUE(buffers_.empty()) << buffers_.size() << " packet buffers lost";
  }
  Script(const Script&) = delete;
  Script& operator=(const Script&) = delete;

  // Time since the start; timers that are due on the way run.
  Script& at(Ns t) {
    run_to(kStartNs + static_cast<uint64_t>(t.count()));
    return *this;
  }

  TcpCounter sends(const Seg& s) {
    OutSegment out;
    out.tuple = {Ipv4Address{0x0a4d0002}, Ipv4Address{0x0a4d0001}, 4444, 45678};
    out.seq = options_.irs + s.seq_.value_or(peer_nxt_);
    out.ack = options_.iss + s.ack_.value_or(heard_end_);
    out.flags = s.flags;
    out.window = static_cast<uint16_t>(s.window_.value_or(options_.snd_wnd));
    out.payload = std::as_bytes(std::span{s.payload});
    if (options_.timestamps && !s.no_timestamp_) {
      out.options = tcp_option::timestamps;
      out.ts_val = s.ts_.value_or(static_cast<uint32_t>(1000 + (now_ - kStartNs) / kNsPerMs));
      out.ts_ecr = s.ecr_.value_or(heard_ts_);
    }
    std::vector<std::byte> frame(kHeaderBytesMax + s.payload.size());
    frame.resize(build_segment(out, frame, TxChecksum::full));
    TcpSegment segment;
    EXPECT_EQ(parse_segment(frame, static_cast<uint32_t>(frame.size()), segment), WireCounter::segment_ok);
    auto slices = slices_of(Bytes{frame}.subspan(segment.payload_offset, segment.payload_length));
    if (s.seq_) peer_nxt_ = *s.seq_ + segment.length();
    const TcpCounter fate = connection.on_segment(segment, slices, now_);
    for (const Slice& slice : slices) {
      if (slice.buffer != nullptr) free_buffer(slice.buffer);
    }
    return fate;
  }

  // The next segment from us.
  void hears(const Seg& expected) {
    collect();
    ASSERT_FALSE(heard_.empty()) << "nothing was sent";
    const TcpSegment got = heard_.front().segment;
    const std::string payload = heard_.front().payload;
    heard_.pop_front();
    EXPECT_EQ(int{got.flags & ~tcp_flag::psh}, int{expected.flags & ~tcp_flag::psh});
    if (expected.seq_) {
      EXPECT_EQ(relative(got.seq, options_.iss), *expected.seq_);
    }
    if (expected.ack_) {
      EXPECT_EQ(relative(got.ack, options_.irs), *expected.ack_);
    }
    if (expected.window_) {
      EXPECT_EQ(uint32_t{got.window} << options_.scale, *expected.window_);
    }
    if (expected.ecr_) {
      EXPECT_EQ(got.ts_ecr, *expected.ecr_);
    }
    EXPECT_EQ(payload, expected.payload);
    if (expected.sack_) {
      std::vector<std::pair<uint32_t, uint32_t>> sack;
      for (uint32_t i = 0; i < got.sack_count; ++i)
        sack.emplace_back(relative(got.sack[i].begin, options_.irs), relative(got.sack[i].end, options_.irs));
      EXPECT_EQ(sack, *expected.sack_);
    }
  }
  void hears_nothing() {
    collect();
    EXPECT_TRUE(heard_.empty()) << "flags " << int{heard_.front().segment.flags} << " ack "
                                << relative(heard_.front().segment.ack, options_.irs);
  }
  void quiet_until(Ns t) {
    at(t);
    hears_nothing();
  }
  void forget_heard() {
    collect();
    heard_.clear();
  }
  // The payload of all that was heard.
  std::string all_heard() {
    collect();
    std::string bytes;
    for (const Heard& h : heard_) bytes += h.payload;
    heard_.clear();
    return bytes;
  }
  [[nodiscard]] std::size_t heard_count() {
    collect();
    return heard_.size();
  }

  // What the loader finds, which it then releases.
  void delivered(std::string_view expected) {
    collect();
    EXPECT_EQ(read(~0U), expected);
  }
  // Reads at most `slices` slices.
  std::string read(uint32_t slices) {
    std::string out;
    for (auto span = handoff_.readable(); !span.empty() && slices > 0; span = handoff_.readable()) {
      span = span.first(std::min<std::size_t>(span.size(), slices));
      for (const Slice& s : span) {
        if (s.end != StreamEnd::none) {
          EXPECT_EQ(end_, StreamEnd::none) << "the end was told twice";
          end_ = s.end;
        } else {
          EXPECT_EQ(end_, StreamEnd::none) << "bytes after the end";
        }
        if (s.length > 0) out.append(reinterpret_cast<const char*>(s.data), s.length);
      }
      const auto n = static_cast<uint32_t>(span.size());
      slices -= n;
      handoff_.advance(n);
      handoff_.release(n);
    }
    reclaim();
    return out;
  }
  void stream_end(StreamEnd end) {
    collect();
    static_cast<void>(read(~0U));
    EXPECT_EQ(static_cast<int>(end_), static_cast<int>(end));
  }

  void counted(std::initializer_list<std::pair<TcpCounter, uint64_t>> expected) {
    collect();
    for (const auto& [which, n] : expected)
      EXPECT_EQ(counters.read(which), n) << kTcpCounterInfo[static_cast<std::size_t>(which)].name;
  }
  void in_state(TcpState state) const {
    EXPECT_EQ(tcp_state_name(connection.state()), tcp_state_name(state));
  }
  void we_send(std::string_view text) { EXPECT_TRUE(connection.send(std::as_bytes(std::span{text}))); }
  void we_close() { connection.close(now_); }
  void we_abort() { connection.abort(); }
  void take_commands() { connection.take_commands(now_); }
  [[nodiscard]] Handoff& handoff() { return handoff_; }
  [[nodiscard]] uint32_t right_edge() const { return relative(connection.right_edge(), options_.irs); }
  [[nodiscard]] std::size_t buffers_live() const { return buffers_.size(); }
  [[nodiscard]] uint64_t now_ns() const { return now_; }
  void reclaim() {
    std::array<void*, 8> freed;
    for (uint32_t n = 1; n > 0;) {
      n = connection.reclaim(freed);
      for (uint32_t i = 0; i < n; ++i) free_buffer(freed[i]);
    }
  }
  // Emits what is due.
  void collect() {
    OutSegment out;
    for (int n = 0; connection.poll_output(now_, out); ++n) {
      ASSERT_LT(n, 64) << "output does not end";
      std::vector<std::byte> frame(kHeaderBytesMax + out.payload.size());
      frame.resize(build_segment(out, frame, TxChecksum::full));
      Heard heard;
      ASSERT_EQ(parse_segment(frame, static_cast<uint32_t>(frame.size()), heard.segment),
                WireCounter::segment_ok);
      heard.payload.assign(reinterpret_cast<const char*>(frame.data()) + heard.segment.payload_offset,
                           heard.segment.payload_length);
      heard_ts_ = heard.segment.ts_val;
      const uint32_t end = relative(heard.segment.seq + heard.segment.length(), options_.iss);
      if (static_cast<int32_t>(end - heard_end_) > 0 && acks_on_) heard_end_ = end;
      heard_.push_back(std::move(heard));
    }
  }
  // From here on the peer's segments do not acknowledge what we send, unless they say so.
  void stops_acking() { acks_on_ = false; }

  TcpCounters counters;

 private:
  struct Heard {
    TcpSegment segment;
    std::string payload;
  };
  static TcpConfig make_config(const ScriptOptions& options) {
    TcpConfig config = options.config;
    config.mss = options.mss;
    config.window_bytes = options.rcv_wnd;
    config.quick_acks = 0;  // scripts begin after the undelayed ones
    if (options.buffer_room > 0) config.room_behind = room_behind;
    return config;
  }
  // Allocated exactly, so that a sanitizer sees the end.
  struct PacketBuffer {
    explicit PacketBuffer(std::size_t size) : bytes(std::make_unique<std::byte[]>(size)), room(size) {}
    std::unique_ptr<std::byte[]> bytes;
    std::size_t room;
  };
  static uint32_t room_behind(const void* buffer, const std::byte* end) noexcept {
    const auto& b = *static_cast<const PacketBuffer*>(buffer);
    return static_cast<uint32_t>(b.bytes.get() + b.room - end);
  }
  static uint32_t relative(SeqNum seq, SeqNum base) { return bytes_between(base, seq); }
  std::vector<Slice> slices_of(Bytes payload) {
    std::vector<Slice> slices;
    const std::size_t step = options_.slice_bytes == 0 ? payload.size() : options_.slice_bytes;
    for (std::size_t at = 0; at < payload.size(); at += step) {
      const Bytes piece = payload.subspan(at, std::min(step, payload.size() - at));
      auto buffer = std::make_unique<PacketBuffer>(std::max<std::size_t>(piece.size(), options_.buffer_room));
      std::memcpy(buffer->bytes.get(), piece.data(), piece.size());
      slices.push_back(
          {buffer->bytes.get(), buffer.get(), static_cast<uint32_t>(piece.size()), StreamEnd::none});
      buffers_.emplace(buffer.get(), std::move(buffer));
    }
    return slices;
  }
  void free_buffer(void* buffer) { EXPECT_EQ(buffers_.erase(buffer), 1U) << "freed twice, or never ours"; }
  void run_to(uint64_t t) {
    for (int n = 0; connection.next_deadline_ns() <= t; ++n) {
      ASSERT_LT(n, 10'000) << "a deadline does not move";
      now_ = std::max(now_, connection.next_deadline_ns());
      collect();
    }
    now_ = std::max(now_, t);
  }

  const ScriptOptions options_;
  const TcpConfig config_;
  Handoff handoff_;

 public:
  TcpConnection connection{config_, handoff_, counters};

 private:
  uint64_t now_ = kStartNs;
  uint32_t peer_nxt_ = 1;
  uint32_t heard_end_ = 1;
  uint32_t heard_ts_ = 0;
  bool acks_on_ = true;
  StreamEnd end_ = StreamEnd::none;
  std::map<void*, std::unique_ptr<PacketBuffer>> buffers_;
  std::deque<Heard> heard_;
};

}  // namespace migrx

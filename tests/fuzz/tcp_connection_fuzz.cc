// A connection under arbitrary segments, reads, commands and time. Input: a byte of configuration, then 8
// bytes per step. Whatever comes: bytes are delivered in order and once, the right edge never moves back, the
// quota holds, output ends, deadlines move, and every packet buffer comes home. Where the window promises
// what fits and buffers may be written, nothing that comes in order is refused, either. Where segments differ
// about a byte, it is one of those that came while it was in the window.
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "dataplane/tcp/connection.h"
#include "tests/fuzz/fuzz_target.h"

namespace migrx::test {
namespace {

constexpr SeqNum kIrs{0xffff'ff00};

void require(bool holds) {
  if (!holds) std::abort();
}

std::byte byte_at(SeqNum seq) {
  return static_cast<std::byte>(bytes_between(kIrs, seq) * 37 % 251);
}

class Endpoint {
 public:
  explicit Endpoint(uint8_t shape) : slice_bytes_(shape % 2 == 0 ? 4096 : 16), handoff_(8U << shape / 2 % 4) {
    config_.mss = 200;
    config_.window_bytes = 4000;
    config_.buffer_bytes = slice_bytes_ == 16 ? 16 : 2048;
    TcpHandshake h;
    h.irs = kIrs;
    h.iss = SeqNum{0xffff'fff0};
    h.timestamps = (shape & 8) != 0;
    h.sack = (shape & 16) != 0;
    h.receive_shift = (shape & 32) != 0 ? 3 : 0;
    if ((shape & 64) != 0) {
      config_.room_behind = room_behind;
      // Of what a slice cut off at its front leaves behind, nothing is promised.
      h.receive_window = window_for(config_, handoff_.capacity(), 188);
      promises_ = true;
    } else {
      h.receive_window = 4000;
    }
    h.send_window = 1000;
    timestamps_ = h.timestamps;
    connection_.open(h, now_);
    edge_ = connection_.right_edge();
    next_ = connection_.rcv_nxt();
  }
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;
  ~Endpoint() {
    connection_.abort();
    output();
    handoff_.detach();
    handoff_.retire();
    reclaim();
    require(connection_.recyclable() && buffers_.empty());
  }

  enum class Payload : uint8_t { right, wrong };

  // Numbers near to what the connection expects.
  void segment(const uint8_t* step, Payload payload) {
    const auto delta = static_cast<int32_t>(static_cast<int16_t>(step[1] << 8 | step[2])) / 16;
    segment(step, connection_.rcv_nxt() + static_cast<uint32_t>(delta),
            kFirstByteOut + static_cast<uint32_t>(static_cast<int8_t>(step[3])), payload);
  }

  // Any number at all: the sequence number, the acknowledgment, both, or (far from the window, but not wild)
  // the former. The lowest byte is the payload's length as well.
  void wild_segment(const uint8_t* step) {
    const uint32_t wild =
        uint32_t{step[1]} << 24 | uint32_t{step[2]} << 16 | uint32_t{step[3]} << 8 | step[6];
    SeqNum seq = connection_.rcv_nxt();
    SeqNum ack = kFirstByteOut;
    if ((step[0] & 0x18) == 0) seq += static_cast<uint32_t>(static_cast<int32_t>(wild) >> 12);
    if ((step[0] & 0x08) != 0) seq += wild;
    if ((step[0] & 0x10) != 0) ack += (step[0] & 0x08) != 0 ? 0U - wild : wild;
    segment(step, seq, ack, (step[0] & 0x20) != 0 ? Payload::wrong : Payload::right);
  }

  void segment(const uint8_t* step, SeqNum seq, SeqNum ack, Payload payload) {
    TcpSegment s;
    s.seq = seq;
    s.ack = ack;
    s.flags = static_cast<uint8_t>(step[4] | ((step[4] & 0xc0) != 0xc0 ? tcp_flag::ack : 0));
    if ((step[4] & 0x30) != 0x30) s.flags &= static_cast<uint8_t>(~(tcp_flag::rst | tcp_flag::syn));
    s.window = static_cast<uint16_t>(step[5] * 8);
    if (timestamps_ && step[7] != 255) {
      s.options = tcp_option::timestamps;
      s.ts_val = static_cast<uint32_t>(now_ / kNsPerMs) + (step[7] > 200 ? 0U - step[7] : 0U);
      s.ts_ecr = step[7];
    }
    s.payload_length = step[6];
    std::vector<Slice> slices;
    for (uint32_t at = 0; at < s.payload_length; at += slice_bytes_) {
      const uint32_t n = std::min(slice_bytes_, s.payload_length - at);
      // Exact, so that a sanitizer sees the end.
      const uint32_t room = config_.room_behind == nullptr ? n : std::min(slice_bytes_, kRoom);
      auto buffer = std::make_unique<PacketBuffer>(room);
      for (uint32_t i = 0; i < n; ++i) buffer->bytes[i] = payload_byte(s.seq + (at + i), payload);
      slices.push_back({buffer->bytes.get(), buffer.get(), n, StreamEnd::none});
      buffers_.emplace(buffer.get(), std::move(buffer));
    }
    const bool in_order = s.seq == connection_.rcv_nxt();
    note(s, payload);
    const TcpCounter fate = connection_.on_segment(s, slices, now_);
    ++segments_unanswered_;
    if (!in_order && s.payload_length > 0) promises_ = false;
    require(!promises_ || fate != TcpCounter::over_quota);
    for (const Slice& slice : slices) {
      if (slice.buffer != nullptr) free(slice.buffer);
    }
    require(connection_.right_edge() >= edge_);
    edge_ = connection_.right_edge();
    require(handoff_.held() <= connection_.quota() + 1);
  }

  void output() {
    OutSegment out;
    for (uint32_t n = 0; connection_.poll_output(now_, out); ++n) {
      // Without SACK each segment beyond a hole has an ACK of its own.
      require(n < 200 + segments_unanswered_ && out.payload.size() <= 1000);
      std::array<std::byte, kHeaderBytesMax + 4096> frame;
      require(build_segment(out, frame, TxChecksum::full) > 0);
    }
    segments_unanswered_ = 0;
  }

  void read(uint32_t slices) {
    for (; slices > 0 && !handoff_.readable().empty(); --slices) {
      const Slice s = handoff_.readable()[0];
      require(!ended_);
      ended_ = s.end != StreamEnd::none;
      for (uint32_t i = 0; i < s.length; ++i, next_ += 1) require(came(next_, s.data[i]));
      // What was handed over is acknowledged, all of it when the stream ends; a FIN is a number, too.
      require(next_ <= connection_.rcv_nxt());
      if (s.end == StreamEnd::fin) require(next_ + 1 == connection_.rcv_nxt());
      handoff_.advance(1);
      handoff_.release(1);
    }
    reclaim();
  }

  void pass(uint64_t ms) {
    const uint64_t until = now_ + ms * kNsPerMs;
    for (uint32_t n = 0; connection_.next_deadline_ns() <= until; ++n) {
      require(n < 1000);
      now_ = std::max(now_, connection_.next_deadline_ns());
      output();
    }
    now_ = until;
  }

  void command(uint8_t which) {
    if (which < 200) {
      static_cast<void>(handoff_.send(Bytes{text_}.first(which % 60)));
    } else if (which < 230) {
      static_cast<void>(handoff_.close());
    } else if (which < 240) {
      static_cast<void>(handoff_.abort());
    }
    connection_.take_commands(now_);
  }

 private:
  static constexpr uint32_t kRoom = 256;
  static constexpr SeqNum kFirstByteOut{0xffff'fff1};
  static std::byte payload_byte(SeqNum seq, Payload payload) {
    return payload == Payload::wrong ? ~byte_at(seq) : byte_at(seq);
  }
  // Which bytes of each offset came, a bit for each Payload, while it was in the window and not delivered
  // yet.
  void note(const TcpSegment& s, Payload payload) {
    for (uint32_t i = 0; i < s.payload_length; ++i) {
      const SeqNum seq = s.seq + i;
      if (seq < connection_.rcv_nxt() || seq >= connection_.right_edge()) continue;
      const uint32_t at = bytes_between(kIrs, seq);
      if (at >= came_.size()) came_.resize(at + 1);
      came_[at] |= static_cast<uint8_t>(1U << static_cast<unsigned>(payload));
    }
  }
  [[nodiscard]] bool came(SeqNum seq, std::byte byte) const {
    const uint32_t at = bytes_between(kIrs, seq);
    if (at >= came_.size()) return false;
    const Payload payload = byte == byte_at(seq) ? Payload::right : Payload::wrong;
    return byte == payload_byte(seq, payload) && (came_[at] >> static_cast<unsigned>(payload) & 1) != 0;
  }
  struct PacketBuffer {
    explicit PacketBuffer(uint32_t size) : bytes(std::make_unique<std::byte[]>(size)), room(size) {}
    std::unique_ptr<std::byte[]> bytes;
    uint32_t room;
  };
  static uint32_t room_behind(const void* buffer, const std::byte* end) noexcept {
    const auto& b = *static_cast<const PacketBuffer*>(buffer);
    return static_cast<uint32_t>(b.bytes.get() + b.room - end);
  }
  void free(void* buffer) { require(buffers_.erase(buffer) == 1); }
  void reclaim() {
    std::array<void*, 8> freed;
    for (uint32_t n = 1; n > 0;) {
      n = connection_.reclaim(freed);
      for (uint32_t i = 0; i < n; ++i) free(freed[i]);
    }
  }

  const uint32_t slice_bytes_;
  TcpConfig config_;
  TcpCounters counters_;
  Handoff handoff_;
  TcpConnection connection_{config_, handoff_, counters_};
  std::array<std::byte, 60> text_{};
  uint64_t now_ = kNsPerSecond;
  bool timestamps_ = false;
  bool ended_ = false;
  uint32_t segments_unanswered_ = 0;  // since the last output
  bool promises_ = false;             // as long as nothing has come but in order
  SeqNum edge_;
  SeqNum next_;
  std::vector<uint8_t> came_;  // by offset
  std::map<void*, std::unique_ptr<PacketBuffer>> buffers_;
};

}  // namespace

std::vector<std::vector<std::byte>> fuzz_seeds() {
  // In order; a hole and its filling; reads; a reply; a FIN.
  const std::vector<uint8_t> steps{56,                            //
                                   0,  0, 0,  0, 0, 200, 100, 0,  //
                                   0,  6, 64, 0, 0, 200, 100, 0,  //
                                   0,  0, 0,  0, 0, 200, 100, 0,  //
                                   2,  9, 0,  0, 0, 0,   0,   0,  //
                                   4,  9, 0,  0, 0, 0,   0,   0,  //
                                   3,  9, 0,  0, 0, 0,   0,   0,  //
                                   0,  0, 0,  9, 1, 200, 50,  0};
  // Bytes beyond a hole that differ from those that come later; then numbers from anywhere.
  const std::vector<uint8_t> liars{56,                                        //
                                   6,      6,    64,   0,    0, 200, 100, 0,  //
                                   0,      4,    0,    0,    0, 200, 200, 0,  //
                                   0,      0,    0,    0,    0, 200, 250, 0,  //
                                   2,      9,    0,    0,    0, 0,   0,   0,  //
                                   7,      1,    0,    0,    0, 200, 10,  0,  //
                                   7 + 8,  0x80, 0,    1,    0, 200, 10,  0,  //
                                   7 + 16, 0x7f, 0xff, 0xff, 0, 200, 10,  0,  //
                                   7 + 32, 0,    0,    0,    0, 200, 10,  0,  //
                                   2,      9,    0,    0,    0, 0,   0,   0};
  std::vector<std::vector<std::byte>> seeds;
  for (const std::vector<uint8_t>& bytes : {steps, liars}) {
    std::vector<std::byte> seed(bytes.size());
    std::memcpy(seed.data(), bytes.data(), bytes.size());
    for (const std::byte shape : {std::byte{0}, std::byte{7}, std::byte{24}, std::byte{56}, std::byte{63},
                                  std::byte{64 + 8}, std::byte{64 + 7}}) {
      seed[0] = shape;
      seeds.push_back(seed);
    }
  }
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  using migrx::test::Endpoint;
  Endpoint endpoint{data[0]};
  for (std::size_t at = 1; at + 8 <= size && at < 8 * 400; at += 8) {
    const uint8_t* const step = data + at;
    switch (step[0] % 8) {
      case 2:
        endpoint.read(step[1] % 16U);
        break;
      case 3:
        endpoint.pass(uint64_t{step[1]} * step[2]);
        break;
      case 4:
        endpoint.command(step[1]);
        break;
      case 5:
        endpoint.output();
        break;
      case 6:
        endpoint.segment(step, Endpoint::Payload::wrong);
        break;
      case 7:
        endpoint.wild_segment(step);
        break;
      default:
        endpoint.segment(step, Endpoint::Payload::right);
        break;
    }
  }
  return 0;
}

// A listener under arbitrary segments, time and places. Input: a byte of configuration, then 8 bytes per
// step. The model remembers every SYN-ACK: a connection is accepted only with the numbers of one that was
// sent to that tuple and is not too old, by a segment that acknowledges it, while there is a place. Replies
// say what RFC 9293 section 3.10.7 says and nothing else, half-open connections are bounded, output ends,
// deadlines move. What is accepted becomes a connection, which takes the same segment.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "dataplane/tcp/connection.h"
#include "dataplane/tcp/listener.h"
#include "tests/fuzz/fuzz_target.h"

namespace migrx::test {
namespace {

constexpr uint16_t kPort = 4444;
constexpr uint32_t kTuples = 32;  // more than the table has places for
constexpr uint16_t kMss = 1000;
constexpr uint32_t kFirstBytesMin = 12;
constexpr uint32_t kPlacesReserved = 2;
// A cookie lives for three ticks of 64 s, then as long in the table as first bytes are awaited.
constexpr uint64_t kNumbersLiveNs = (3 * 64 + 30) * kNsPerSecond;
constexpr uint64_t kDeadlineAheadNs = 32 * kNsPerSecond;  // the last repetition but one

void require(bool holds) {
  if (!holds) std::abort();
}

FourTuple tuple_of(uint8_t index, uint16_t local_port = kPort) {
  const uint32_t i = index % kTuples;
  return {Ipv4Address{0x0a4d0000 + i % 4}, Ipv4Address{0x0a4d0080}, static_cast<uint16_t>(40000 + i),
          local_port};
}

struct SynAck {
  SeqNum irs;
  SeqNum iss;
  uint64_t sent_ns = 0;   // last
  uint32_t repeated = 0;  // by the timer
  uint16_t mss = 0;       // the peer's
  uint8_t options = 0;
  uint32_t ts_val = 0;
};

// What was sent to one tuple.
struct Peer {
  std::optional<SynAck> table;  // of the last that an entry was made for
  std::vector<SynAck> cookies;
};

class Endpoint {
 public:
  explicit Endpoint(uint8_t shape)
      : tcp_(tcp_config(shape)), config_(config(shape)), tenant_(tenant(shape)) {}
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;
  ~Endpoint() {
    output();
    reset_all();
  }

  void syn(const uint8_t* step) {
    TcpSegment s = segment_of(step[1]);
    s.seq = SeqNum{step[2] * 0x0101'0101U};
    s.flags = static_cast<uint8_t>(tcp_flag::syn | ((step[6] & 0xc0) == 0xc0 ? step[6] : 0));
    s.options = step[3] & 15;
    s.mss = static_cast<uint16_t>(step[4] * 40);
    s.window_scale = step[5] % 20;
    s.window = static_cast<uint16_t>(step[5] * 256);
    s.payload_length = step[6] % 64 == 63 ? 20 : 0;
    if (s.has_option(tcp_option::timestamps)) s.ts_val = clock() - step[7] % 8;
    feed(s);
  }

  // Near to what the handshake of this or another tuple needs.
  void answer(const uint8_t* step) {
    TcpSegment s = segment_of(step[1]);
    const std::optional<SynAck> to = sent_to(static_cast<uint8_t>(step[1] + step[2] / 4 % 4), step[2] % 4);
    if (!to.has_value()) return;
    // Half of the steps reach from the first byte to the right edge of the window.
    s.seq = to->irs + 1 + (step[4] < 128 ? step[4] : step[4] * 257U);
    s.ack = to->iss + 1 + static_cast<uint32_t>(static_cast<int8_t>(step[3]));
    s.payload_length = step[5];
    s.flags = static_cast<uint8_t>((step[6] & 0x0e) == 0x0e ? 0 : tcp_flag::ack);
    if ((step[6] & 1) != 0) s.flags |= tcp_flag::fin;
    if ((step[6] & 0x30) == 0x30) s.flags |= tcp_flag::rst;
    if ((step[6] & 0xc0) == 0xc0) s.flags |= tcp_flag::syn;
    s.window = static_cast<uint16_t>(step[6] * 128);
    if ((to->options & tcp_option::timestamps) != 0 && step[7] != 255) {
      s.options = tcp_option::timestamps;
      s.ts_val = clock() - (step[7] > 200 ? step[7] * 100U : 0U);
      s.ts_ecr = to->ts_val + (step[7] < 100 ? 0U : step[7]);
    }
    feed(s);
  }

  void wild(const uint8_t* step) {
    TcpSegment s = segment_of(step[1]);
    uint16_t delta = 0;
    std::memcpy(&delta, step + 2, 2);
    const std::optional<SynAck> to = sent_to(step[1], 0);
    s.seq = (to.has_value() ? to->irs : SeqNum{}) + (uint32_t{delta} << step[4] % 17);
    // One in 2^24 would be a cookie by chance, but for its time, which is over.
    const auto tick = static_cast<uint32_t>(now_ / (64 * kNsPerSecond)) + 8;
    s.ack = SeqNum{((step[7] * 0x0101'0101U & ~0xf8U) | (tick & 31) << 3) + 1};
    s.flags = step[6];
    s.payload_length = step[5];
    s.options = step[4] >> 5;
    s.ts_val = s.ts_ecr = delta;
    s.window = delta;
    feed(s);
  }

  void again() { feed(last_); }

  void pass(uint64_t ms) {
    const uint64_t until = now_ + ms * kNsPerMs;
    for (uint32_t n = 0; listener_.next_deadline_ns() <= until; ++n) {
      require(n < 1000);
      now_ = std::max(now_, listener_.next_deadline_ns());
      output();
    }
    now_ = until;
  }

  void output() {
    const uint32_t most = listener_.half_open();
    OutSegment out;
    for (uint32_t n = 0; listener_.poll_output(now_, out); ++n) {
      require(n < most);
      SynAck* const sent = syn_ack(out);
      require(sent != nullptr && ++sent->repeated <= config_.syn_ack_retries);
      sent->sent_ns = now_;
    }
    require(listener_.next_deadline_ns() > now_);
    check();
  }

  void reset_all() {
    OutSegment out;
    for (uint32_t left = listener_.half_open(); listener_.reset_one(kPort, out); --left) {
      require(left > 0 && listener_.half_open() == left - 1);
      require(out.flags == (tcp_flag::rst | tcp_flag::ack) && out.payload.empty());
      require(known(out.tuple, out.ack - 1, out.seq - 1) != nullptr);
      build(out);
      peer(out.tuple).table.reset();
    }
    require(listener_.half_open() == 0);
  }

  void set_places(uint8_t free) { free_ = free % 4; }
  void doubt(uint8_t ms) { listener_.set_cookies_in_flight_until_ns(now_ + ms * kNsPerMs); }

 private:
  static TcpConfig tcp_config(uint8_t shape) {
    TcpConfig c;
    c.mss = kMss;
    c.timestamps = c.sack = c.window_scaling = (shape & 16) == 0;
    if ((shape & 64) != 0) c.buffer_quota = 8;
    return c;
  }
  static ListenerConfig config(uint8_t shape) {
    ListenerConfig c;
    c.first_bytes_min = (shape & 1) != 0 ? kFirstBytesMin : 0;
    c.syn_table_entries = (shape & 2) != 0 ? 16 : 8;
    c.syn_cookies = (shape & 8) == 0;
    if ((shape & 128) != 0) c.syn_ack_retries = 0;
    return c;
  }
  static TenantConfig tenant(uint8_t shape) {
    TenantConfig t;
    t.port = kPort;
    if ((shape & 4) != 0) t.allow = {{Ipv4Address{0x0a4d0000}, 31}, {Ipv4Address{0x0a4d0003}, 32}};
    t.places_reserved = (shape & 32) != 0 ? kPlacesReserved : 0;
    return t;
  }

  [[nodiscard]] uint32_t clock() const { return static_cast<uint32_t>(now_ / kNsPerMs); }
  [[nodiscard]] TcpSegment segment_of(uint8_t which) const {
    TcpSegment s;
    // A few for a port where nobody listens.
    s.tuple = tuple_of(which, which >= 240 ? kPort + 1 : kPort);
    s.link.remote_mac.bytes[5] = static_cast<std::byte>(which % kTuples);
    return s;
  }
  Peer& peer(const FourTuple& tuple) { return peers_[tuple.remote_port - 40000]; }
  [[nodiscard]] bool allowed(const FourTuple& tuple) const {
    return tenant_.allow.empty() || tuple.remote_ip != Ipv4Address{0x0a4d0002};
  }
  std::optional<SynAck> sent_to(uint8_t index, uint32_t back) {
    const Peer& p = peer(tuple_of(index));
    if (p.table.has_value() && back-- == 0) return p.table;
    if (back >= p.cookies.size()) return std::nullopt;
    return p.cookies[p.cookies.size() - 1 - back];
  }
  SynAck* known(const FourTuple& tuple, SeqNum irs, SeqNum iss) {
    Peer& p = peer(tuple);
    if (p.table.has_value() && p.table->irs == irs && p.table->iss == iss) return &*p.table;
    return cookie(p, irs, iss);
  }
  // The low three bits are the MSS and not signed: who has a cookie may choose another one.
  static SynAck* cookie(Peer& p, SeqNum irs, SeqNum iss) {
    const auto at = std::find_if(p.cookies.rbegin(), p.cookies.rend(), [=](const SynAck& c) {
      return c.irs == irs && (c.iss.value() ^ iss.value()) < 8;
    });
    return at == p.cookies.rend() ? nullptr : &*at;
  }

  static void build(const OutSegment& out) {
    std::array<std::byte, kHeaderBytesMax + 64> frame;
    require(build_segment(out, frame, TxChecksum::full) > 0);
  }
  // One that is repeated: the numbers it had the first time.
  SynAck* syn_ack(const OutSegment& out) {
    require(out.flags == (tcp_flag::syn | tcp_flag::ack) && out.payload.empty() && out.mss == kMss);
    require(out.tuple.local_port == kPort && allowed(out.tuple));
    require(out.link == segment_of(static_cast<uint8_t>(out.tuple.remote_port - 40000)).link);
    build(out);
    Peer& p = peer(out.tuple);
    return p.table.has_value() && p.table->iss == out.seq && p.table->irs + 1 == out.ack ? &*p.table
                                                                                         : nullptr;
  }

  void feed(const TcpSegment& s) {
    last_ = s;
    OutSegment reply;
    TcpHandshake h;
    const uint32_t half_open = listener_.half_open();
    const TcpListener::Result result =
        listener_.on_segment(s, s.tuple.local_port == kPort ? &tenant_ : nullptr, free_, now_, reply, h);
    require(counters_.read(result.fate) > 0);
    switch (result.action) {
      case TcpListener::Action::none:
        require(result.fate != TcpCounter::no_connection_doubtful ||
                now_ < listener_.cookies_in_flight_until_ns());
        break;
      case TcpListener::Action::reply:
        replied(s, result.fate, reply);
        break;
      case TcpListener::Action::accept:
        require(result.fate == TcpCounter::handshake_done && listener_.half_open() <= half_open);
        accepted(s, h);
        break;
    }
    if (result.fate == TcpCounter::handshake_reset) peer(s.tuple).table.reset();
    check();
  }

  void replied(const TcpSegment& s, TcpCounter fate, const OutSegment& reply) {
    require(!s.has(tcp_flag::rst) && reply.tuple == s.tuple && reply.link == s.link);
    if ((reply.flags & tcp_flag::rst) != 0) {
      require(fate != TcpCounter::syn && fate != TcpCounter::syn_repeated &&
              fate != TcpCounter::syn_cookie_sent && reply.payload.empty());
      if (s.has(tcp_flag::ack)) {
        require(reply.flags == tcp_flag::rst && reply.seq == s.ack);
      } else {
        require(reply.flags == (tcp_flag::rst | tcp_flag::ack) && reply.ack == s.seq + s.length());
      }
      build(reply);
      return;
    }
    require(s.has(tcp_flag::syn) && !s.has(tcp_flag::ack) && reply.ack == s.seq + 1);
    Peer& p = peer(s.tuple);
    const SynAck sent{
        s.seq,         reply.seq,   now_, 0, s.has_option(tcp_option::mss) ? s.mss : uint16_t{536},
        reply.options, reply.ts_val};
    switch (fate) {
      case TcpCounter::syn:
        require((reply.options & ~(s.options | tcp_option::mss)) == 0);
        p.table = sent;
        break;
      case TcpCounter::syn_repeated:
        break;
      default:
        require(fate == TcpCounter::syn_cookie_sent && config_.syn_cookies);
        require((reply.options & ~(s.options | tcp_option::mss)) == 0);
        p.table.reset();
        p.cookies.push_back(sent);
        break;
    }
  }

  void accepted(const TcpSegment& s, const TcpHandshake& h) {
    require(free_ > 0 && h.tuple == s.tuple && h.link == s.link);
    require(s.tuple.local_port == kPort && allowed(s.tuple));
    require(s.has(tcp_flag::ack) && !s.has(tcp_flag::syn) && !s.has(tcp_flag::rst));
    require(s.ack == h.iss + 1 && s.seq >= h.irs + 1 && s.seq <= h.irs + 1 + h.receive_window);
    if (config_.first_bytes_min > 0) {
      require(s.payload_length > 0);
      if (free_ <= tenant_.places_reserved)
        require(s.seq == h.irs + 1 && s.payload_length >= config_.first_bytes_min);
    }
    require(h.send_mss >= 64 && h.send_mss <= kMss && h.send_shift <= 14 && h.receive_shift <= 14);
    const SynAck* const sent = known(h.tuple, h.irs, h.iss);
    require(sent != nullptr && now_ - sent->sent_ns <= kNumbersLiveNs);
    Peer& p = peer(h.tuple);
    if (p.table.has_value() && sent == &*p.table) {
      require(h.send_mss == std::min(std::max(sent->mss, uint16_t{64}), kMss));
      require(h.timestamps == ((sent->options & tcp_option::timestamps) != 0));
      require(h.sack == ((sent->options & tcp_option::sack_permitted) != 0));
      p.table.reset();  // an entry opens one connection
    }
    connect(s, h);
  }

  // The connection outlives the segment by its first answer only.
  void connect(const TcpSegment& s, const TcpHandshake& h) {
    Handoff handoff{8};
    TcpConnection connection{tcp_, handoff, counters_};
    connection.open(h, now_);
    const auto bytes = std::make_unique<std::byte[]>(s.payload_length);
    std::array<Slice, 1> slices{Slice{bytes.get(), bytes.get(), s.payload_length, StreamEnd::none}};
    const std::span<Slice> payload{slices.data(), s.payload_length > 0 ? 1U : 0U};
    const TcpCounter fate = connection.on_segment(s, payload, now_);
    // What the listener has looked at the connection does not refuse.
    require(fate != TcpCounter::ack_unacceptable && fate != TcpCounter::ack_missing &&
            fate != TcpCounter::paws_rejected && fate != TcpCounter::connection_closed &&
            fate != TcpCounter::over_quota);
    if (s.seq == h.irs + 1 && fate != TcpCounter::timestamp_missing)
      require(connection.rcv_nxt() == s.seq + s.length());
    const bool kept = !payload.empty() && slices[0].buffer == nullptr;
    OutSegment out;
    uint32_t n = 0;
    const auto drain = [&] {
      for (; connection.poll_output(now_, out); ++n) {
        require(n < 4 && out.tuple == s.tuple && out.link == s.link && out.payload.empty());
        build(out);
      }
    };
    drain();
    connection.abort();
    drain();
    handoff.detach();
    handoff.retire();
    std::array<void*, 8> freed;
    require(connection.reclaim(freed) == (kept ? 1U : 0U) && (!kept || freed[0] == bytes.get()));
    require(connection.recyclable());
  }

  void check() {
    require(listener_.half_open() <= config_.syn_table_entries);
    require(listener_.half_open() == 0 || listener_.next_deadline_ns() <= now_ + kDeadlineAheadNs);
  }

  const TcpConfig tcp_;
  const ListenerConfig config_;
  const TenantConfig tenant_;
  TcpCounters counters_;
  TcpListener listener_{config_, tcp_, counters_};
  std::array<Peer, kTuples> peers_;
  TcpSegment last_;
  uint32_t free_ = 3;
  uint64_t now_ = kNsPerSecond;
};

}  // namespace

std::vector<std::vector<std::byte>> fuzz_seeds() {
  using Step = std::array<uint8_t, 8>;
  const auto syn = [](uint8_t tuple) { return Step{0, tuple, 0xff, 15, 36, 7, 0, 0}; };
  const auto answer = [](uint8_t tuple, uint8_t bytes) { return Step{1, tuple, 0, 0, 0, bytes, 0, 0}; };
  std::vector<Step> steps;
  // A handshake; one whose first bytes come later; more than the table holds, two answered; the SYN-ACKs
  // again.
  steps.insert(steps.end(), {syn(0), {3, 1, 5}, answer(0, 16), syn(0), syn(1), answer(1, 0), answer(1, 60)});
  for (uint8_t i = 0; i < 20; ++i) steps.push_back(syn(i));
  for (const uint8_t i : std::array<uint8_t, 3>{3, 17, 19})
    steps.insert(steps.end(), {answer(i, 0), answer(i, 100), {7, 0}});
  steps.insert(steps.end(), {{3, 100, 70}, {4, 0}, answer(5, 40), {4, 1}, answer(5, 40), {7, 1, 200}});
  steps.insert(steps.end(),
               {{2, 4, 1, 0, 0, 10, 16, 5}, {1, 9, 0, 0, 0, 0, 0x30, 0}, {3, 250, 250, 1}, {6}, syn(2)});
  std::vector<std::vector<std::byte>> seeds;
  for (const uint8_t shape : std::array<uint8_t, 8>{0, 1, 2 + 4, 1 + 8, 1 + 32, 16, 1 + 64, 128}) {
    std::vector<std::byte> seed{std::byte{shape}};
    for (const Step& step : steps)
      for (const uint8_t byte : step) seed.push_back(std::byte{byte});
    seeds.push_back(std::move(seed));
  }
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  migrx::test::Endpoint endpoint{data[0]};
  for (std::size_t at = 1; at + 8 <= size && at < 8 * 400; at += 8) {
    const uint8_t* const step = data + at;
    switch (step[0] % 8) {
      case 0:
        endpoint.syn(step);
        break;
      case 1:
        endpoint.answer(step);
        break;
      case 2:
        endpoint.wild(step);
        break;
      case 3:  // up to a minute, or an hour, in which cookies become old
        endpoint.pass(uint64_t{step[1]} * step[2] * (step[3] % 2 == 0 ? 1 : 64));
        break;
      case 4:
        endpoint.set_places(step[1]);
        break;
      case 5:
        endpoint.output();
        break;
      case 6:
        endpoint.reset_all();
        break;
      default:
        if (step[1] % 2 == 0) {
          endpoint.again();
        } else {
          endpoint.doubt(step[2]);
        }
        break;
    }
  }
  return 0;
}

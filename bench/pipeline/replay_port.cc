#include "bench/pipeline/replay_port.h"

#include <immintrin.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "dataplane/tcp/config.h"
#include "dataplane/wire/checksum.h"
#include "dataplane/wire/ipv6.h"

namespace migrx::bench {
namespace {

constexpr EthernetAddress mac_of(uint8_t last) {
  return {{std::byte{0x02}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{last}}};
}
constexpr uint32_t kIss = 0xffff'0000;  // every stream wraps early
constexpr uint8_t kOurShift = 7;
constexpr uint16_t kFirstPort = 20000;
constexpr uint32_t kWireOverhead = 24;  // preamble 8, frame check sequence 4, gap 12
constexpr uint32_t kNoBuffer = UINT32_MAX;
constexpr uint32_t kCoalescedMax = 65'535 - 52;  // IPv4's length field holds headers and payload; IPv6's, TCP
constexpr uint64_t kBurstsPerMs = 512;  // of the source's clock: about what 32 segments take at these rates

uint32_t iss_of(uint32_t connection) {
  return kIss + connection * 77777;
}

bool reaches(uint32_t a, uint32_t b) {
  return static_cast<int32_t>(a - b) >= 0;
}

}  // namespace

// As dataplane/dpdk sizes them: 2 KiB, or what one frame needs.
uint32_t ReplayPort::buffer_bytes_of(uint32_t mtu) noexcept {
  return std::max<uint32_t>(2048, (mtu + 22 + 63) / 64 * 64);
}

// An odd number of cache lines, so that headers do not all fall into the same sets; mempools do likewise.
uint32_t ReplayPort::stride_of(uint32_t mtu) noexcept {
  const uint32_t lines = (kHeadroom + buffer_bytes_of(mtu)) / 64;
  return (lines | 1U) * 64;
}

ReplayPort::ReplayPort(const ReplayOptions& options, const GuestPlan& plan)
    : options_(options),
      segment_bytes_(segment_bytes_of(options.mtu, options.ipv6)),
      main_stream_(plan.main_stream()),
      memory_(std::size_t{options.buffers} * stride_of(options.mtu)),
      connections_(plan.channels() + 1),
      stride_(stride_of(options.mtu)),
      ready_max_(options.coalesce_bytes == 0 ? kReady : kReadyToCoalesce),
      ready_(ready_max_),
      chain_max_(std::clamp<uint32_t>(std::min(options.coalesce_bytes, kCoalescedMax) / segment_bytes_, 1,
                                      kFrameSegmentsMax)),
      links_(options.buffers),
      tx_(kTxFrames) {
  if (options.mtu < 576 || options.mtu > 9000) throw std::invalid_argument("the MTU must be 576 to 9000");
  if (options.ipv6 && options.mtu < kIpv6MtuMin) throw std::invalid_argument("IPv6 needs an MTU of 1280");
  if (options.burst == 0 || options.burst > kBurst)
    throw std::invalid_argument("a burst is 1 to " + std::to_string(kBurst) + " frames");
  if (options.drop_every == 1) throw std::invalid_argument("not every segment can be lost");
  if (options.coalesce_bytes > 0 && !options.checksum_good)
    throw std::invalid_argument("only what the port has verified is coalesced");
  if (options.run == 0) throw std::invalid_argument("a run is one segment at least");
  uint64_t capacity = 1;
  while (capacity < options.buffers) capacity *= 2;
  free_mask_ = capacity - 1;
  free_.resize(capacity);
  for (uint32_t i = 0; i < options.buffers; ++i) {
    std::memset(data_of(i), 0, header_bytes_);
    fill_fresh(i, {data_of(i) + header_bytes_, segment_bytes_});
    free_[free_tail_++] = i;
  }
  for (uint32_t i = 0; i < connections_.size(); ++i) {
    Connection& connection = connections_[i];
    connection.port = static_cast<uint16_t>(kFirstPort + i);
    connection.next = connection.acked = iss_of(i);
    if (i < plan.channels()) {
      connection.script = std::make_unique<ChannelScript>(plan, i);
      connection.bytes = connection.script->left();
    } else {
      connection.bytes = main_stream_.size();
    }
    if (!options.established) continue;
    connection.next = first_byte_of(i).value();
    connection.acked = connection.next;
    connection.edge = connection.next + options.first_window;
    connection.shift = receiver_shift();
    connection.state = Connection::State::established;
    make_header(connection);
    store_be32(connection.header.data() + tcp_at_ + 8, (kReceiverIss + 1U).value());
    ++settled_;
  }
  std::size_t segments = 0;
  for (const Connection& connection : connections_)
    segments += (connection.bytes + segment_bytes_ - 1) / segment_bytes_;
  uses_.resize(segments);
  lost_.reserve(options.drop_every == 0 ? 0 : options.buffers);
}

ReplayPort::~ReplayPort() = default;

void ReplayPort::fill_fresh(uint32_t i, MutableBytes payload) const noexcept {
  uint64_t x = (uint64_t{i} + 1) * 0x9e37'79b9'7f4a'7c15U;  // xorshift64, never 0
  for (std::size_t at = 0; at < payload.size(); at += sizeof x) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    std::memcpy(payload.data() + at, &x, std::min(sizeof x, payload.size() - at));
  }
}

SeqNum ReplayPort::first_byte_of(uint32_t i) const noexcept {
  return SeqNum{iss_of(i)} + 1U;
}

uint8_t ReplayPort::receiver_shift() noexcept {
  return window_scale_for(TcpConfig{}.window_bytes);
}

EthernetAddress ReplayPort::mac() const noexcept {
  return mac_of(2);
}

bool ReplayPort::at_gate() const noexcept {
  return std::all_of(connections_.begin(), connections_.end(), [](const Connection& c) {
    return c.state == Connection::State::established &&
           (c.script == nullptr ? c.sent == c.bytes : c.sent > 0);
  });
}

bool ReplayPort::all_acknowledged() const noexcept {
  return std::all_of(connections_.begin(), connections_.end(), [](const Connection& c) {
    return c.state == Connection::State::fin_sent && c.fin_acked;
  });
}

OutSegment ReplayPort::outgoing(const Connection& connection) const noexcept {
  OutSegment out;
  out.tuple = {receiver(), source(), kListenPort, connection.port};  // remote is where it goes
  out.link = {mac_of(2), mac_of(1), 0, 0};
  out.seq = SeqNum{connection.next};
  out.window = 512;
  out.options = tcp_option::timestamps;
  out.ts_val = now_ms_;
  out.ts_ecr = connection.ts_echo;
  return out;
}

// What will be written soon lies in the cache of the core that read it last, or in L3: the headers, and the
// page stamps as far as it can be told who will use the buffer.
void ReplayPort::look_ahead() noexcept {
  constexpr uint32_t kAhead = 12;
  std::byte* const data = data_of(free_[(free_head_ + kAhead) & free_mask_]);
  __builtin_prefetch(data, 1);
  if (options_.ipv6) __builtin_prefetch(data + kLine, 1);
  const bool same = kAhead < run_left_;
  const Connection& connection = connections_[same                               ? turn_
                                              : turn_ + 1 == connections_.size() ? 0
                                                                                 : turn_ + 1];
  if (connection.script == nullptr) return;
  const uint32_t segments = same ? kAhead : kAhead - run_left_;
  const uint32_t in_page = connection.script->page_position(segments * segment_bytes_);
  for (uint32_t at = in_page == 0 ? 0 : kPageBytes - in_page; at < segment_bytes_; at += kPageBytes) {
    __builtin_prefetch(data + header_bytes_ + at, 1);
    __builtin_prefetch(data + header_bytes_ + at + sizeof(PageStamp) - 1, 1);
  }
}

uint32_t ReplayPort::take() noexcept {
  if (free_head_ == free_tail_) {
    ++counters_.no_buffer;
    return kNoBuffer;
  }
  look_ahead();
  return free_[free_head_++ & free_mask_];
}

// A whole segment fits the window: senders of bulk data send no smaller ones (RFC 9293 section 3.8.6.2.1).
bool ReplayPort::sendable(const Connection& connection) const noexcept {
  if (connection.state != Connection::State::established || connection.sent == connection.bytes) return false;
  if (!gate_open_ && connection.script != nullptr && connection.sent > 0) return false;
  const auto length =
      static_cast<uint32_t>(std::min<uint64_t>(segment_bytes_, connection.bytes - connection.sent));
  return options_.boundless || reaches(connection.edge, connection.next + length);
}

void ReplayPort::finish_frame(std::byte* data, uint32_t length, Frame& out) noexcept {
  out.buffer = data;
  out.data = data;
  out.data_len = out.frame_len = length;
  out.nb_segs = 1;
  out.ip_checksum = ChecksumState::good;
  out.l4_checksum = options_.checksum_good ? ChecksumState::good : ChecksumState::unknown;
  counters_.frame_bytes += length;
  counters_.wire_bytes += length + kWireOverhead;
}

// What the IP header says of the length: IPv4's counts itself, IPv6's does not.
void ReplayPort::store_length(std::byte* data, uint32_t frame_bytes) const noexcept {
  if (options_.ipv6)
    store_be16(data + 18, static_cast<uint16_t>(frame_bytes - tcp_at_));
  else
    store_be16(data + 16, static_cast<uint16_t>(frame_bytes - kEthernetHeaderBytes));
}

// Not ARP or ICMPv6.
bool ReplayPort::is_tcp(const std::byte* data) const noexcept {
  return options_.ipv6 ? load_be16(data + 12) == 0x86dd && data[20] == std::byte{ipv6_next::tcp}
                       : load_be16(data + 12) == 0x0800;
}

void ReplayPort::make_header(Connection& connection) noexcept {
  OutSegment out = outgoing(connection);
  out.ack = SeqNum{0};
  out.flags = tcp_flag::ack;
  std::array<std::byte, kHeaderBytesMax> frame;
  static_cast<void>(build_segment(out, frame, TxChecksum::both_by_port));
  std::memcpy(connection.header.data(), frame.data(), header_bytes_);
}

void ReplayPort::present(Connection& connection, uint32_t index, uint32_t buffer, Made& out) noexcept {
  std::byte* const data = data_of(buffer);
  std::byte* const payload = data + header_bytes_;
  std::byte* const tcp = data + tcp_at_;
  const auto length =
      static_cast<uint32_t>(std::min<uint64_t>(segment_bytes_, connection.bytes - connection.sent));
  std::memcpy(data, connection.header.data(), kLine);
  if (options_.ipv6)
    std::memcpy(data + kLine, connection.header.data() + kLine, kIpv6Bytes - kUnwritten - kLine);
  store_length(data, header_bytes_ + length);
  store_be32(tcp + 4, connection.next);
  store_be32(tcp + 24, now_ms_);
  store_be16(tcp + 28, static_cast<uint16_t>(connection.ts_echo >> 16));
  uses_[use_count_].connection = index & 0xff;
  uses_[use_count_++].buffer = buffer & 0xff'ffff;
  if (connection.script != nullptr) {
    out.pieces = connection.script->write(payload, length, out.piece.data());
  } else {
    std::memcpy(payload, main_stream_.data() + connection.sent, length);
    out.piece[0] = {0, static_cast<uint16_t>(length)};
    out.pieces = 1;
    if (connection.sent + length == connection.bytes) tcp[13] |= std::byte{tcp_flag::psh};
  }
  connection.next += length;
  connection.sent += length;
  ++counters_.segments;
  sum_up(data, header_bytes_ + length);
  finish_frame(data, header_bytes_ + length, out.frame);
}

// TCP's checksum of a data frame, where the port does not vouch for it.
void ReplayPort::sum_up(std::byte* data, uint32_t length) noexcept {
  if (options_.checksum_good) return;
  const uint32_t tcp_length = length - tcp_at_;
  std::byte* const tcp = data + tcp_at_;
  store_be16(tcp + 16, 0);
  ChecksumSum sum;
  if (options_.ipv6) {
    add_ipv6_pseudo_header(sum, source(), receiver(), ipv6_next::tcp, tcp_length);
  } else {
    sum.add_be32(source().ipv4().value);
    sum.add_be32(receiver().ipv4().value);
    sum.add_be16(6);
    sum.add_be16(static_cast<uint16_t>(tcp_length));
  }
  sum.add({tcp, tcp_length});
  store_be16(tcp + 16, sum.checksum());
}

// ---- Loss

// True: the segment just made is one that gets lost.
bool ReplayPort::dropped(const Connection& connection, uint32_t index, const Frame& frame) {
  if (options_.drop_every == 0 || !gate_open_ || connection.script == nullptr) return false;
  if (++droppable_ % options_.drop_every != 0) return false;
  lost_.push_back({frame, index, load_be32(frame.data + tcp_at_ + 4), now_ms_, 0});
  ++counters_.lost;
  return true;
}

// Lost segments whose time has come. idle: there was nothing else to send, so no more frames will pass.
void ReplayPort::send_again(bool idle) noexcept {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < lost_.size(); ++i) {
    Lost& lost = lost_[i];
    const bool asked = lost.due != 0 && (idle || lost.due <= made_);
    const bool timed_out = lost.due == 0 && now_ms_ - lost.since_ms > kTimeoutMs;
    if ((!asked && !timed_out) || ready_tail_ - ready_head_ == ready_max_) {
      lost_[kept++] = lost;
      continue;
    }
    auto* const data = static_cast<std::byte*>(lost.frame.buffer);
    store_be32(data + tcp_at_ + 24, now_ms_);
    store_be16(data + tcp_at_ + 28, static_cast<uint16_t>(connections_[lost.connection].ts_echo >> 16));
    sum_up(data, lost.frame.data_len);
    Made& made = ready_[ready_tail_++ % ready_max_];
    made.frame = lost.frame;
    made.pieces = 0;
    ++made_;
    ++counters_.resent;
    if (timed_out) ++counters_.timeouts;
    counters_.frame_bytes += lost.frame.data_len;
    counters_.wire_bytes += lost.frame.data_len + kWireOverhead;
  }
  lost_.resize(kept);
}

// RFC 2018: what was lost in front of a block that the receiver has is to be sent again.
void ReplayPort::note_sack(uint32_t index, const std::byte* data, uint32_t length) noexcept {
  TcpSegment segment;
  if (lost_.empty() || parse_segment({data, length}, length, segment) != WireCounter::segment_ok) return;
  for (uint32_t i = 0; i < segment.sack_count; ++i)
    for (Lost& lost : lost_)
      if (lost.connection == index && lost.due == 0 && !reaches(lost.seq, segment.sack[i].end.value()))
        lost.due = made_ + kRoundTripFrames;
}

// SYN and FIN.
bool ReplayPort::control_frame(Connection& connection, Made& out) noexcept {
  const bool open = connection.state == Connection::State::closed;
  const bool close =
      connection.state == Connection::State::established && connection.sent == connection.bytes && gate_open_;
  if (!open && !close) return false;
  OutSegment segment = outgoing(connection);
  if (open) {
    segment.flags = tcp_flag::syn;
    segment.options |= tcp_option::mss | tcp_option::window_scale | tcp_option::sack_permitted;
    segment.mss = static_cast<uint16_t>(segment_bytes_ + kTimestampBytes);
    segment.window_scale = kOurShift;
    segment.window = 65535;
    segment.ts_ecr = 0;
    connection.state = Connection::State::syn_sent;
  } else {
    segment.flags = tcp_flag::fin | tcp_flag::ack;
    segment.ack = SeqNum{load_be32(connection.header.data() + tcp_at_ + 8)};
    connection.state = Connection::State::fin_sent;
  }
  const uint32_t buffer = take();
  if (buffer == kNoBuffer) return false;
  std::byte* const data = data_of(buffer) - kControlEarlier;
  const uint32_t length = build_segment(segment, {data, buffer_bytes()}, TxChecksum::full);
  out.pieces = 0;
  ++connection.next;
  ++settled_;
  finish_frame(data, length, out.frame);
  return true;
}

// Those of the turn before: stores must have left the core before their lines can.
void ReplayPort::demote_made() noexcept {
  for (; demoted_ != ready_tail_; ++demoted_) {
    const Made& made = ready_[demoted_ % ready_max_];
    auto* const data = static_cast<std::byte*>(made.frame.buffer);
    _cldemote(data);
    if (options_.ipv6) _cldemote(data + kLine);
    for (uint32_t i = 0; i < made.pieces; ++i)
      for (uint32_t at = 0; at < made.piece[i].length; at += 64)
        _cldemote(data + header_bytes_ + made.piece[i].begin + at);
  }
}

uint32_t ReplayPort::make_frames() noexcept {
  if (options_.demote) demote_made();
  const uint32_t before = ready_tail_;
  if (!lost_.empty()) send_again(false);
  const auto total = static_cast<uint32_t>(connections_.size());
  uint32_t looked = 0;
  while (ready_tail_ - ready_head_ < ready_max_ && looked <= total) {
    Connection& connection = connections_[turn_];
    Made& made = ready_[ready_tail_ % ready_max_];
    if (run_left_ > 0 && sendable(connection)) [[likely]] {
      const uint32_t buffer = take();
      if (buffer == kNoBuffer) break;
      present(connection, turn_, buffer, made);
      ++made_;
      if (!dropped(connection, turn_, made.frame)) [[likely]]
        ++ready_tail_;
      --run_left_;
      looked = 0;
      continue;
    }
    if (settled_ < 2 * total && control_frame(connection, made)) {
      ++ready_tail_;
      continue;
    }
    turn_ = turn_ + 1 == total ? 0 : turn_ + 1;
    run_left_ = std::max(options_.run, chain_max_);
    ++looked;
  }
  if (ready_tail_ == ready_head_ && !lost_.empty()) send_again(true);
  return ready_tail_ - before;
}

uint32_t ReplayPort::rx_burst(std::span<Frame> out) noexcept {
  const uint64_t start = __rdtsc();
  if (++bursts_ % kBurstsPerMs == 0) ++now_ms_;
  const auto most = static_cast<uint32_t>(std::min<std::size_t>(out.size(), options_.burst));
  uint32_t count = 0;
  for (; count < most && ready_head_ != ready_tail_; ++count) {
    out[count] = ready_[ready_head_++ % ready_max_].frame;
    if (chain_max_ > 1) coalesce(out[count]);
  }
  const uint32_t made = make_frames();
  // The source pays for its own stores: those that wait for lines would be paid for by whoever comes next.
  if (made > 0) _mm_mfence();
  const uint64_t spent = __rdtsc() - start;
  counters_.source_cycles += spent;
  counters_.frames += count;
  if (count + made > 0) counters_.busy_source_cycles += spent;
  return count;
}

// Takes the segments that follow the frame's in sequence into its chain, and makes its headers those of all.
// Flags end a chain (FIN, PSH), as with a device.
void ReplayPort::coalesce(Frame& frame) noexcept {
  auto* const data = static_cast<std::byte*>(frame.buffer);
  const auto is_plain = [this](const Frame& f) {
    return f.data == f.buffer && f.data[tcp_at_ + 13] == std::byte{tcp_flag::ack} &&
           f.data_len > header_bytes_;
  };
  if (frame.data != frame.buffer || !is_plain(frame)) return;
  uint32_t last = index_of(data);
  uint32_t next_seq = load_be32(data + tcp_at_ + 4) + frame.data_len - header_bytes_;
  while (frame.nb_segs < chain_max_ && ready_head_ != ready_tail_) {
    const Frame& next = ready_[ready_head_ % ready_max_].frame;
    if (!is_plain(next) || load_be32(next.data + tcp_at_ + 4) != next_seq ||
        load_be16(next.data + tcp_at_) != load_be16(data + tcp_at_))
      break;
    const uint32_t bytes = next.data_len - header_bytes_;
    last = links_[last].next = index_of(next.buffer);
    links_[last].bytes = bytes;
    next_seq += bytes;
    frame.frame_len += bytes;
    ++frame.nb_segs;
    ++ready_head_;
  }
  if (frame.nb_segs > 1) store_length(data, frame.frame_len);
}

// Buffers of a chain but the first hold payload alone: their frames' headers stand in front of it.
uint32_t ReplayPort::unchain(const Frame& frame, std::span<Slice> out) noexcept {
  if (out.size() < frame.nb_segs) return 0;
  out[0] = {frame.data, frame.buffer, frame.data_len, StreamEnd::none};
  uint32_t buffer = index_of(frame.buffer);
  for (uint32_t i = 1; i < frame.nb_segs; ++i) {
    buffer = links_[buffer].next;
    std::byte* const data = data_of(buffer);
    out[i] = {data + header_bytes_, data, links_[buffer].bytes, StreamEnd::none};
  }
  return frame.nb_segs;
}

void ReplayPort::free_bulk(std::span<void* const> buffers) noexcept {
  for (void* const buffer : buffers) {
    free_[free_tail_++ & free_mask_] = index_of(buffer);
  }
}

bool ReplayPort::adopt(const Frame& foreign, Frame& own) noexcept {
  own = foreign;  // there is one core, one pool
  return true;
}

bool ReplayPort::tx_alloc(TxFrame& out) noexcept {
  if (tx_count_ == kTxFrames) return false;
  out = {nullptr, tx_[(tx_first_ + tx_count_) % kTxFrames].data(), kTxBytes};
  return true;
}

void ReplayPort::tx_commit(uint32_t length) noexcept {
  if (length > 0) tx_length_[(tx_first_ + tx_count_++) % kTxFrames] = length;
}

uint32_t ReplayPort::tx_flush() noexcept {
  const uint64_t start = __rdtsc();
  const uint32_t sent = tx_count_;
  for (uint32_t i = 0; i < sent; ++i, tx_first_ = (tx_first_ + 1) % kTxFrames)
    on_answer(tx_[tx_first_].data(), tx_length_[tx_first_]);
  tx_count_ = 0;
  const uint64_t spent = __rdtsc() - start;
  counters_.source_cycles += spent;
  counters_.busy_source_cycles += spent;
  return sent;
}

// The receiver's frames are known to be well-formed: its own tests see to that.
void ReplayPort::on_answer(const std::byte* data, uint32_t length) noexcept {
  if (length < tcp_at_ + kTcpHeaderBytes || !is_tcp(data)) return;
  const std::byte* const tcp = data + tcp_at_;
  const uint32_t index = uint32_t{load_be16(tcp + 2)} - kFirstPort;
  if (index >= connections_.size()) return;
  Connection& connection = connections_[index];
  const uint8_t flags = std::to_integer<uint8_t>(tcp[13]);
  if ((flags & tcp_flag::rst) != 0) {
    ++counters_.resets;
    return;
  }
  const uint32_t seq = load_be32(tcp + 4);
  const uint32_t ack = load_be32(tcp + 8);
  const uint32_t window = load_be16(tcp + 14);
  ++counters_.acks;
  if ((flags & tcp_flag::syn) != 0) {
    TcpSegment segment;
    if (parse_segment({data, length}, length, segment) != WireCounter::segment_ok) return;
    connection.ts_echo = segment.ts_val & kEchoMask;
    connection.acked = ack;
    connection.edge = ack + window;  // never scaled in a SYN: RFC 7323 section 2.2
    connection.state = Connection::State::established;
    make_header(connection);
    store_be32(connection.header.data() + tcp_at_ + 8, seq + 1);
    connection.shift = segment.window_scale;
    return;
  }
  connection.ts_echo = load_be32(tcp + 24) & kEchoMask;
  if (options_.drop_every > 0) note_sack(index, data, length);
  if (reaches(ack, connection.acked)) {
    connection.acked = ack;
    connection.edge = ack + (window << connection.shift);
  }
  if (connection.state == Connection::State::fin_sent && ack == connection.next) connection.fin_acked = true;
}

}  // namespace migrx::bench

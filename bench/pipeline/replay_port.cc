#include "bench/pipeline/replay_port.h"

#include <immintrin.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "dataplane/wire/checksum.h"

namespace migrx::bench {
namespace {

constexpr EthernetAddress mac_of(uint8_t last) {
  return {{std::byte{0x02}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{last}}};
}
constexpr uint32_t kIss = 0xffff'0000;  // every stream wraps early
constexpr uint8_t kOurShift = 7;
constexpr uint16_t kFirstPort = 20000;
constexpr uint32_t kWireOverhead = 24;  // preamble 8, frame check sequence 4, gap 12
constexpr uint64_t kBurstsPerMs = 512;  // of the source's clock: about what 32 segments take at these rates

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
      segment_bytes_(segment_bytes_of(options.mtu)),
      main_stream_(plan.main_stream()),
      pattern_(segment_bytes_),
      memory_(std::size_t{options.buffers} * stride_of(options.mtu)),
      connections_(plan.channels() + 1),
      tx_(kTxFrames) {
  if (options.mtu < 576 || options.mtu > 9000) throw std::invalid_argument("the MTU must be 576 to 9000");
  if (options.run == 0) throw std::invalid_argument("a run is one segment at least");
  uint64_t x = 88172645463325252U;
  for (std::byte& b : pattern_) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    b = static_cast<std::byte>(x >> 32);
  }
  uint64_t capacity = 1;
  while (capacity < options.buffers) capacity *= 2;
  free_mask_ = capacity - 1;
  free_.resize(capacity);
  for (uint32_t i = 0; i < options.buffers; ++i) {
    auto* const buffer = new (memory_.data() + std::size_t{i} * stride_of(options.mtu)) Buffer;
    std::memcpy(data_of(buffer) + kHeaderBytes, pattern_.data(), pattern_.size());
    free_[free_tail_++] = buffer;
  }
  for (uint32_t i = 0; i < connections_.size(); ++i) {
    Connection& connection = connections_[i];
    connection.port = static_cast<uint16_t>(kFirstPort + i);
    connection.next = connection.acked = kIss + i * 77777;
    if (i < plan.channels()) {
      connection.script = std::make_unique<ChannelScript>(plan, i);
      connection.bytes = connection.script->left();
    } else {
      connection.bytes = main_stream_.size();
    }
  }
}

ReplayPort::~ReplayPort() = default;

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
  out.tuple = {kReceiver, kSource, kListenPort, connection.port};  // remote is where it goes
  out.link = {mac_of(2), mac_of(1), 0, 0};
  out.seq = SeqNum{connection.next};
  out.window = 512;
  out.options = tcp_option::timestamps;
  out.ts_val = now_ms_;
  out.ts_ecr = connection.ts_echo;
  return out;
}

// What will be written soon lies in the cache of the core that read it last.
void ReplayPort::look_ahead() noexcept {
  constexpr uint32_t kFar = 24, kNear = 12;
  __builtin_prefetch(free_[(free_head_ + kFar) & free_mask_], 1);
  if (free_tail_ - free_head_ <= kNear) return;
  Buffer* const next = free_[(free_head_ + kNear) & free_mask_];
  std::byte* const data = data_of(next);
  __builtin_prefetch(data, 1);
  __builtin_prefetch(data + 64, 1);
  for (uint32_t i = 0; i < next->pieces; ++i)
    __builtin_prefetch(data + kHeaderBytes + next->piece[i].begin, 1);
}

ReplayPort::Buffer* ReplayPort::take() noexcept {
  if (free_head_ == free_tail_) {
    ++counters_.no_buffer;
    return nullptr;
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
  return reaches(connection.edge, connection.next + length);
}

void ReplayPort::finish_frame(std::byte* data, uint32_t length, Buffer* buffer, Frame& out) noexcept {
  out.buffer = buffer;
  out.data = data;
  out.data_len = out.frame_len = length;
  out.nb_segs = 1;
  out.ip_checksum = ChecksumState::good;
  out.l4_checksum = options_.checksum_good ? ChecksumState::good : ChecksumState::unknown;
  counters_.frame_bytes += length;
  counters_.wire_bytes += length + kWireOverhead;
}

void ReplayPort::make_header(Connection& connection) noexcept {
  OutSegment out = outgoing(connection);
  out.ack = SeqNum{0};
  out.flags = tcp_flag::ack;
  std::array<std::byte, kHeaderBytesMax> frame;
  static_cast<void>(build_segment(out, frame, TxChecksum::both_by_port));
  std::memcpy(connection.header.data(), frame.data(), kHeaderBytes);
}

// The pattern, where the last use of the buffer left something else.
void ReplayPort::mend(Buffer* buffer) noexcept {
  std::byte* const payload = data_of(buffer) + kHeaderBytes;
  for (uint32_t i = 0; i < buffer->pieces; ++i) {
    const ChannelScript::Piece piece = buffer->piece[i];
    if (piece.length == sizeof(PageStamp))
      std::memcpy(payload + piece.begin, pattern_.data() + piece.begin, sizeof(PageStamp));
    else
      std::memcpy(payload + piece.begin, pattern_.data() + piece.begin, piece.length);
  }
  buffer->pieces = 0;
}

void ReplayPort::present(Connection& connection, uint32_t index, Buffer* buffer, Frame& out) noexcept {
  std::byte* const data = data_of(buffer);
  std::byte* const payload = data + kHeaderBytes;
  const auto length =
      static_cast<uint32_t>(std::min<uint64_t>(segment_bytes_, connection.bytes - connection.sent));
  mend(buffer);
  std::memcpy(data, connection.header.data(), kHeaderBytes);
  store_be16(data + 16, static_cast<uint16_t>(kHeaderBytes - 14 + length));
  store_be32(data + 38, connection.next);
  store_be32(data + 58, now_ms_);
  store_be32(data + 62, connection.ts_echo);
  if (connection.script != nullptr) {
    const uint64_t stamp = segment_stamp(index, connection.sent);
    std::memcpy(payload, &stamp, sizeof stamp);  // never mended: every segment has one
    buffer->pieces = connection.script->write(payload, length, buffer->piece.data());
  } else {
    std::memcpy(payload, main_stream_.data() + connection.sent, length);
    buffer->piece[0] = {0, static_cast<uint16_t>(length)};
    buffer->pieces = 1;
    if (connection.sent + length == connection.bytes) data[47] |= std::byte{tcp_flag::psh};
  }
  connection.next += length;
  connection.sent += length;
  ++counters_.segments;
  if (!options_.checksum_good) {
    const uint32_t tcp_length = kHeaderBytes - 34 + length;
    store_be16(data + 50, 0);
    ChecksumSum sum;
    sum.add_be32(kSource.value);
    sum.add_be32(kReceiver.value);
    sum.add_be16(6);
    sum.add_be16(static_cast<uint16_t>(tcp_length));
    sum.add({data + 34, tcp_length});
    store_be16(data + 50, sum.checksum());
  }
  finish_frame(data, kHeaderBytes + length, buffer, out);
}

// SYN and FIN.
bool ReplayPort::control_frame(Connection& connection, Frame& out) noexcept {
  const bool open = connection.state == Connection::State::closed;
  const bool close =
      connection.state == Connection::State::established && connection.sent == connection.bytes && gate_open_;
  if (!open && !close) return false;
  OutSegment segment = outgoing(connection);
  if (open) {
    segment.flags = tcp_flag::syn;
    segment.options |= tcp_option::mss | tcp_option::window_scale | tcp_option::sack_permitted;
    segment.mss = static_cast<uint16_t>(options_.mtu - 40);
    segment.window_scale = kOurShift;
    segment.window = 65535;
    segment.ts_ecr = 0;
    connection.state = Connection::State::syn_sent;
  } else {
    segment.flags = tcp_flag::fin | tcp_flag::ack;
    segment.ack = SeqNum{load_be32(connection.header.data() + 42)};
    connection.state = Connection::State::fin_sent;
  }
  Buffer* const buffer = take();
  if (buffer == nullptr) return false;
  mend(buffer);
  std::byte* const data = data_of(buffer);
  const uint32_t length = build_segment(segment, {data, buffer_bytes()}, TxChecksum::full);
  // Options of a SYN reach beyond the headers of data.
  buffer->piece[0] = {0, 32};
  buffer->pieces = 1;
  ++connection.next;
  ++settled_;
  finish_frame(data, length, buffer, out);
  return true;
}

// Those of the turn before: stores must have left the core before their lines can.
void ReplayPort::demote_made() noexcept {
  for (; demoted_ != ready_tail_; ++demoted_) {
    auto* const buffer = static_cast<Buffer*>(ready_[demoted_ % kReady].buffer);
    std::byte* const data = data_of(buffer);
    _cldemote(data);
    _cldemote(data + 64);
    for (uint32_t i = 0; i < buffer->pieces; ++i)
      for (uint32_t at = 0; at < buffer->piece[i].length; at += 64)
        _cldemote(data + kHeaderBytes + buffer->piece[i].begin + at);
  }
}

uint32_t ReplayPort::make_frames() noexcept {
  if (options_.demote) demote_made();
  const uint32_t before = ready_tail_;
  const auto total = static_cast<uint32_t>(connections_.size());
  uint32_t looked = 0;
  while (ready_tail_ - ready_head_ < kReady && looked <= total) {
    Connection& connection = connections_[turn_];
    Frame& frame = ready_[ready_tail_ % kReady];
    if (run_left_ > 0 && sendable(connection)) [[likely]] {
      Buffer* const buffer = take();
      if (buffer == nullptr) break;
      present(connection, turn_, buffer, frame);
      ++ready_tail_;
      --run_left_;
      looked = 0;
      continue;
    }
    if (settled_ < 2 * total && control_frame(connection, frame)) {
      ++ready_tail_;
      continue;
    }
    turn_ = turn_ + 1 == total ? 0 : turn_ + 1;
    run_left_ = options_.run;
    ++looked;
  }
  return ready_tail_ - before;
}

uint32_t ReplayPort::rx_burst(std::span<Frame> out) noexcept {
  const uint64_t start = __rdtsc();
  if (++bursts_ % kBurstsPerMs == 0) ++now_ms_;
  const auto count = static_cast<uint32_t>(std::min<std::size_t>(out.size(), ready_tail_ - ready_head_));
  for (uint32_t i = 0; i < count; ++i) out[i] = ready_[ready_head_++ % kReady];
  const uint32_t made = make_frames();
  // The source pays for its own stores: those that wait for lines would be paid for by whoever comes next.
  if (made > 0) _mm_mfence();
  const uint64_t spent = __rdtsc() - start;
  counters_.source_cycles += spent;
  counters_.frames += count;
  if (count + made > 0) counters_.busy_source_cycles += spent;
  return count;
}

uint32_t ReplayPort::unchain(const Frame& frame, std::span<Slice> out) noexcept {
  if (out.empty()) return 0;
  out[0] = {frame.data, frame.buffer, frame.data_len, StreamEnd::none};
  return 1;
}

void ReplayPort::free_bulk(std::span<void* const> buffers) noexcept {
  for (void* const buffer : buffers) free_[free_tail_++ & free_mask_] = static_cast<Buffer*>(buffer);
}

bool ReplayPort::adopt(const Frame& foreign, Frame& own) noexcept {
  own = foreign;  // there is one core, one pool
  return true;
}

bool ReplayPort::tx_alloc(TxFrame& out) noexcept {
  if (tx_count_ == kTxFrames) return false;
  out = {nullptr, tx_[tx_count_].data(), kTxBytes};
  return true;
}

void ReplayPort::tx_commit(uint32_t length) noexcept {
  if (length > 0) tx_length_[tx_count_++] = length;
}

uint32_t ReplayPort::tx_flush() noexcept {
  const uint64_t start = __rdtsc();
  const uint32_t sent = tx_count_;
  for (uint32_t i = 0; i < sent; ++i) on_answer(tx_[i].data(), tx_length_[i]);
  tx_count_ = 0;
  const uint64_t spent = __rdtsc() - start;
  counters_.source_cycles += spent;
  counters_.busy_source_cycles += spent;
  return sent;
}

// The receiver's frames are known to be well-formed: its own tests see to that.
void ReplayPort::on_answer(const std::byte* data, uint32_t length) noexcept {
  if (length < 54 || load_be16(data + 12) != 0x0800) return;  // ARP
  const uint32_t index = uint32_t{load_be16(data + 36)} - kFirstPort;
  if (index >= connections_.size()) return;
  Connection& connection = connections_[index];
  const uint8_t flags = std::to_integer<uint8_t>(data[47]);
  if ((flags & tcp_flag::rst) != 0) {
    ++counters_.resets;
    return;
  }
  const uint32_t seq = load_be32(data + 38);
  const uint32_t ack = load_be32(data + 42);
  const uint32_t window = load_be16(data + 48);
  ++counters_.acks;
  if ((flags & tcp_flag::syn) != 0) {
    TcpSegment segment;
    if (parse_segment({data, length}, length, segment) != WireCounter::segment_ok) return;
    connection.ts_echo = segment.ts_val;
    connection.acked = ack;
    connection.edge = ack + window;  // never scaled in a SYN: RFC 7323 section 2.2
    connection.state = Connection::State::established;
    make_header(connection);
    store_be32(connection.header.data() + 42, seq + 1);
    connection.shift = segment.window_scale;
    return;
  }
  connection.ts_echo = load_be32(data + 58);
  if (reaches(ack, connection.acked)) {
    connection.acked = ack;
    connection.edge = ack + (window << connection.shift);
  }
  if (connection.state == Connection::State::fin_sent && ack == connection.next) connection.fin_acked = true;
}

}  // namespace migrx::bench

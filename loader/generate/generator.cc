#include "loader/generate/generator.h"

#include <algorithm>
#include <exception>

#include "dataplane/wire/arp.h"
#include "dataplane/wire/icmp6.h"
#include "dataplane/wire/ndp.h"

namespace migrx {
namespace {

constexpr uint64_t kQuestionEveryNs = 500 * kNsPerMs;
constexpr uint64_t kCloseNs = 3 * kNsPerSecond;  // for FINs and their answers
// Per stream and turn, so that all take turns on the link.
constexpr uint32_t kSegmentsPerTurn = 32;

// An unguessable initial sequence number is worth little here, but costs nothing (RFC 6528).
uint64_t scramble(uint64_t value) noexcept {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

std::string stream_name(uint32_t stream) {
  return stream == 0 ? "main" : "multifd " + std::to_string(stream - 1);
}

}  // namespace

Generator::Generator(const GeneratorConfig& config, PortQueue& queue, GuestSource& source)
    : config_(config),
      queue_(queue),
      source_(source),
      senders_(source.streams()),
      sealed_(source.streams()) {}

Generator::~Generator() = default;

bool Generator::accepted() const noexcept {
  return verdict_.shut() == 0U;
}

void Generator::enter(GeneratorPhase phase, uint64_t now_ns) noexcept {
  phase_since_ns_ = now_ns;
  phase_.store(phase, std::memory_order_release);  // pairs with phase(): what it tells of is written
}

void Generator::end(std::string problem) noexcept {
  if (problem_.empty()) problem_ = std::move(problem);
}

uint32_t Generator::do_work(uint64_t now_ns) noexcept {
  const GeneratorPhase phase = phase_.load(std::memory_order_relaxed);
  if (phase == GeneratorPhase::over) return 0;
  if (phase_since_ns_ == 0) phase_since_ns_ = now_ns;
  uint32_t work = receive(now_ns);
  step(now_ns);
  uint64_t acknowledged = 0;
  const uint32_t streams = source_.streams();
  for (uint32_t i = 0; i < streams; ++i) {
    const uint32_t stream = (first_stream_ + i) % streams;
    if (senders_[stream] == nullptr) continue;
    work += send(stream, now_ns);
    acknowledged += senders_[stream]->acknowledged();
  }
  first_stream_ = (first_stream_ + 1) % streams;
  acknowledged_.set(acknowledged);
  const uint32_t sent = queue_.tx_push();
  frames_sent_ += sent;
  return work + sent;
}

void Generator::on_stop() noexcept {
  OutSegment out;
  StreamRange chunk;
  for (const auto& sender : senders_) {
    if (sender == nullptr) continue;
    sender->abort();
    TxFrame frame;
    while (sender->next_segment(0, out, chunk) && queue_.tx_alloc(frame))
      queue_.tx_commit(build_segment(out, {frame.data, frame.capacity}, TxChecksum::full));
  }
  frames_sent_ += queue_.tx_flush();
  phase_.store(GeneratorPhase::over, std::memory_order_release);
}

// ---- Input

uint32_t Generator::receive(uint64_t now_ns) noexcept {
  const uint32_t count = queue_.rx_burst(frames_);
  if (count == 0) return 0;
  std::array<void*, kBurst> buffers;
  for (uint32_t i = 0; i < count; ++i) {
    on_frame(frames_[i], now_ns);
    buffers[i] = frames_[i].buffer;
  }
  queue_.free_bulk({buffers.data(), count});
  frames_received_ += count;
  return count;
}

void Generator::on_frame(const Frame& frame, uint64_t now_ns) noexcept {
  TcpSegment segment;
  const Bytes head{frame.data, frame.data_len};
  const WireCounter fate = parse_segment(head, frame.frame_len, segment);
  if (fate == WireCounter::arp) {
    on_arp(frame);
    return;
  }
  if (fate == WireCounter::icmp6) {
    on_icmp6(frame);
    return;
  }
  const uint32_t stream = uint32_t{segment.tuple.local_port} - config_.first_local_port;
  // Answers are small: what does not lie in one buffer is no answer.
  if (fate != WireCounter::segment_ok || frame.nb_segs != 1 || stream >= senders_.size() ||
      senders_[stream] == nullptr || segment.tuple != senders_[stream]->tuple() ||
      frame.ip_checksum == ChecksumState::bad || frame.l4_checksum == ChecksumState::bad ||
      (frame.ip_checksum == ChecksumState::unknown && !ip_checksum_ok(segment, head)) ||
      (frame.l4_checksum == ChecksumState::unknown && !tcp_checksum_ok(segment, {&head, 1}))) {
    ++frames_dropped_;
    return;
  }
  const Bytes payload = head.subspan(segment.payload_offset, segment.payload_length);
  const Bytes fresh = senders_[stream]->on_segment(segment, payload, now_ns);
  if (fresh.empty()) return;
  if (sealed_[stream] == nullptr) {
    if (stream == 0) verdict_.feed(fresh);
    return;
  }
  text_.clear();
  if (!sealed_[stream]->receive(fresh, text_) && !sealed_[stream]->problem().empty())
    end("channel " + stream_name(stream) + ": TLS: " + sealed_[stream]->problem());
  if (stream == 0) verdict_.feed(text_);
}

void Generator::on_arp(const Frame& frame) noexcept {
  ArpPacket arp;
  if (!parse_arp({frame.data, frame.data_len}, arp)) {
    ++frames_dropped_;
    return;
  }
  if (!config_.local_ip.is_ipv4()) return;
  if (arp.operation == ArpPacket::Operation::reply && config_.next_hop == arp.sender_ip) {
    learn(arp.sender_mac);
    return;
  }
  ArpPacket reply;
  TxFrame out;
  if (arp_reply_for(arp, queue_.mac(), config_.local_ip.ipv4(), reply) && queue_.tx_alloc(out))
    queue_.tx_commit(build_arp(reply, {out.data, out.capacity}));
}

// Neighbour discovery (RFC 4861) alone: whatever else there is, the peer's TCP finds out.
void Generator::on_icmp6(const Frame& frame) noexcept {
  Icmp6View view;
  NdpPacket heard;
  if (config_.local_ip.is_ipv4() || !parse_icmp6({frame.data, frame.data_len}, view) ||
      !parse_ndp(view, heard)) {
    ++frames_dropped_;
    return;
  }
  if (heard.kind == NdpPacket::Kind::advertisement) {
    if (heard.target == config_.next_hop) learn(heard.has_mac ? heard.mac : heard.link.remote_mac);
    return;
  }
  NdpPacket reply;
  TxFrame out;
  if (ndp_reply_for(heard, queue_.mac(), config_.local_ip, reply) && queue_.tx_alloc(out))
    queue_.tx_commit(build_ndp(reply, {out.data, out.capacity}));
}

void Generator::learn(const EthernetAddress& mac) noexcept {
  if (link_known_) return;
  link_.remote_mac = mac;
  link_.local_mac = queue_.mac();
  tag(link_);
  link_known_ = true;
}

void Generator::tag(FrameAddress& link) const noexcept {
  if (config_.vlan < 0) return;
  link.tagged = 1;
  link.vlan_tci = static_cast<uint16_t>(config_.vlan);
}

// ---- What comes next

void Generator::ask_next_hop(uint64_t now_ns) noexcept {
  if (now_ns < next_question_ns_) return;
  next_question_ns_ = now_ns + kQuestionEveryNs;
  TxFrame out;
  if (!queue_.tx_alloc(out)) return;
  const MutableBytes room{out.data, out.capacity};
  if (config_.local_ip.is_ipv4()) {
    ArpPacket request = arp_request_for(queue_.mac(), config_.local_ip.ipv4(), config_.next_hop.ipv4());
    tag(request.link);
    queue_.tx_commit(build_arp(request, room));
  } else {
    NdpPacket question = ndp_solicitation_for(queue_.mac(), config_.local_ip, config_.next_hop);
    tag(question.link);
    queue_.tx_commit(build_ndp(question, room));
  }
}

void Generator::connect(uint32_t stream, uint64_t now_ns) noexcept {
  const uint64_t random = scramble(config_.secret + stream);
  const FourTuple tuple{config_.remote_ip, config_.local_ip, config_.remote_port,
                        static_cast<uint16_t>(config_.first_local_port + stream)};
  senders_[stream] = std::make_unique<TcpSender>(
      config_.tcp, tuple, link_, SeqNum{static_cast<uint32_t>(random)}, static_cast<uint32_t>(random >> 32));
  senders_[stream]->connect(now_ns);
  if (config_.tls) sealed_[stream] = std::make_unique<SealedStream>(*config_.tls, source_.stream(stream));
}

void Generator::step(uint64_t now_ns) noexcept {
  const GeneratorPhase phase = phase_.load(std::memory_order_relaxed);
  const auto connected = [this](uint32_t stream) {
    return senders_[stream] != nullptr && senders_[stream]->state() == TcpSender::State::established &&
           (sealed_[stream] == nullptr || sealed_[stream]->secured());
  };
  if (cancel_.load(std::memory_order_relaxed) && phase != GeneratorPhase::closing) {
    end("cancelled");
    for (const auto& sender : senders_)
      if (sender != nullptr) sender->abort();
    enter(GeneratorPhase::closing, now_ns);
    return;
  }
  switch (phase) {
    case GeneratorPhase::resolving:
      if (link_known_) {
        connect(0, now_ns);
        enter(GeneratorPhase::connecting, now_ns);
      } else if (now_ns - phase_since_ns_ > config_.answer_timeout_ns) {
        end(config_.local_ip.is_ipv4()
                ? "no host answers ARP for the destination's address or the gateway's"
                : "no host answers neighbour discovery for the destination's address or "
                  "the gateway's");
        enter(GeneratorPhase::over, now_ns);
      } else {
        ask_next_hop(now_ns);
      }
      return;
    case GeneratorPhase::connecting: {
      bool all = true;
      if (!problem_.empty()) {  // a handshake that failed
        for (const auto& sender : senders_)
          if (sender != nullptr) sender->abort();
        enter(GeneratorPhase::closing, now_ns);
        return;
      }
      for (uint32_t i = 0; i < source_.streams(); ++i) {
        if (i > 0 && senders_[i] == nullptr && connected(0)) connect(i, now_ns);
        all = all && connected(i);
        if (senders_[i] == nullptr || !senders_[i]->over()) continue;
        end("channel " + stream_name(i) + ": the destination refuses the connection" +
            (config_.tls ? " or its TLS" : "") + ", or does not answer");
        enter(GeneratorPhase::closing, now_ns);
        return;
      }
      if (all) {
        started_ns_ = now_ns;
        enter(GeneratorPhase::streaming, now_ns);
      } else if (now_ns - phase_since_ns_ > config_.answer_timeout_ns) {
        end("the destination does not take all connections: has it as many multifd channels?");
        enter(GeneratorPhase::closing, now_ns);
      }
      return;
    }
    case GeneratorPhase::streaming: {
      if (ram_loaded_ns_ == 0 && verdict_.pong() == kPingRamLoaded) ram_loaded_ns_ = now_ns;
      if (verdict_.nonsense()) end("channel main: the bytes that come back are no return path");
      if (verdict_.shut() && *verdict_.shut() != 0)
        end("the destination refuses the migration: SHUT " + std::to_string(*verdict_.shut()));
      // A destination closes its multifd channels once RAM is loaded, before it gives its verdict. What it
      // does with a stream that has no device state is its business.
      for (uint32_t i = 0; i < (ram_loaded() ? 1 : source_.streams()); ++i) {
        if (verdict_.shut() || (!senders_[i]->over() && !senders_[i]->peer_closed())) continue;
        end(ram_loaded()
                ? "RAM is loaded, but the destination closed channel main without a verdict"
                : "the destination ended channel " + stream_name(i) + " in the middle of RAM" +
                      (config_.tls ? ", or it refuses this client's certificate: see its warnings" : ""));
      }
      if (ram_loaded() && !verdict_.shut() && now_ns - ram_loaded_ns_ > config_.answer_timeout_ns)
        end("RAM is loaded, but the destination gives no verdict");
      if (problem_.empty() && !verdict_.shut()) return;
      for (const auto& sender : senders_) problem_.empty() ? sender->close() : sender->abort();
      enter(GeneratorPhase::closing, now_ns);
      return;
    }
    case GeneratorPhase::closing: {
      bool all = true;
      for (const auto& sender : senders_)
        all = all && (sender == nullptr || (sender->over() && sender->deadline_ns() == kNever));
      if (all || now_ns - phase_since_ns_ > kCloseNs) enter(GeneratorPhase::over, now_ns);
      return;
    }
    case GeneratorPhase::over:
      return;
  }
}

// ---- Output

// What there is to send of the stream, and nothing is kept that has arrived. Returns its end.
uint64_t Generator::prepare(uint32_t stream, uint64_t now_ns) noexcept {
  const bool streaming = phase_.load(std::memory_order_relaxed) == GeneratorPhase::streaming;
  ChannelStream& bytes = source_.stream(stream);
  SealedStream* const sealed = sealed_[stream].get();
  if (sealed == nullptr)
    bytes.release(senders_[stream]->acknowledged());
  else
    sealed->release(senders_[stream]->acknowledged());
  if (streaming) {
    try {
      if (stream > 0) source_.fill(stream, config_.backlog_bytes, now_ns - started_ns_);
    } catch (const std::exception& failure) {
      end(failure.what());
    }
  }
  if (sealed == nullptr) return streaming ? bytes.end() : 0;
  // At once: a QEMU destination reads the first packet of a channel before it looks at the next connection.
  if (sealed->secured()) sealed->seal();
  if (!sealed->problem().empty()) end("channel " + stream_name(stream) + ": TLS: " + sealed->problem());
  return sealed->end();
}

uint32_t Generator::send(uint32_t stream, uint64_t now_ns) noexcept {
  TcpSender& sender = *senders_[stream];
  sender.on_time(now_ns);
  if (const GeneratorPhase phase = phase_.load(std::memory_order_relaxed);
      phase == GeneratorPhase::streaming || phase == GeneratorPhase::connecting)
    sender.set_stream_end(prepare(stream, now_ns));
  StreamRange chunk;
  uint32_t count = 0;
  for (; count < kSegmentsPerTurn; ++count) {
    TxFrame frame;
    if (!queue_.tx_alloc(frame)) break;
    if (!sender.next_segment(now_ns, out_, chunk)) {
      queue_.tx_commit(0);
      break;
    }
    if (chunk.end - chunk.begin + kHeaderBytesMax > frame.capacity) {
      queue_.tx_commit(0);
      end("packet buffers are too small for the MSS");
      break;
    }
    // The bytes are written where they belong; build_segment() does not copy them again.
    const std::span<std::byte> payload{frame.data + header_bytes(out_), chunk.end - chunk.begin};
    if (sealed_[stream] != nullptr)
      sealed_[stream]->read(chunk.begin, payload);
    else
      source_.stream(stream).read(chunk.begin, payload);
    out_.payload = payload;
    queue_.tx_commit(build_segment(out_, {frame.data, frame.capacity}, TxChecksum::full));
  }
  return count;
}

}  // namespace migrx

#include "dataplane/poll_core.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "dataplane/tenants.h"
#include "dataplane/wire/segment.h"

namespace migrx {
namespace {

// Frames whose headers are fetched into cache before they are parsed: parsing one takes a few tens of cycles,
// a line from L3 about as long.
constexpr uint32_t kPrefetchAhead = 8;
// Connections looked at per turn although nothing arrived for them: their loader may have released buffers,
// the control thread may have sent a command. With 4096 connections each is seen every 512 turns, every 2048
// under load.
constexpr uint32_t kVisitsPerTurn = 8;
// The same in a turn that received: those that frames came for are seen anyway, and a visit costs as much as
// half a segment.
constexpr uint32_t kVisitsPerBusyTurn = 2;
// Frames adopted per turn from one other core.
constexpr uint32_t kAdoptMax = 32;
constexpr uint32_t kConnectionsMax = 4096;
constexpr uint32_t kProbesPerTurn = 16;
// ANNOUNCE_NUM and ANNOUNCE_INTERVAL of RFC 5227.
constexpr uint32_t kAnnouncements = 2;
constexpr uint64_t kAnnounceNs = 2 * kNsPerSecond;
// How long the last RSTs may take to leave while the port takes none.
constexpr auto kLastWords = std::chrono::milliseconds(20);
// The largest payload we send, whatever the peer takes: return-path messages are small, and some virtual
// ports receive jumbo frames but send none. With IPv6 no packet is larger than every link carries, so that no
// router has to tell us of a smaller one (RFC 8201 section 4).
constexpr uint16_t kSendMssMax = 1460 - 12;
constexpr uint16_t kSendMssMaxIpv6 = kIpv6MtuMin - kIpv6HeaderBytes - kTcpHeaderBytes;

// Ethernet, IPv4, TCP and timestamps are 66 bytes, but HeaderMatch reads one line of them; a tag or IPv6
// makes it two.
[[gnu::always_inline]] inline void prefetch_headers(const Frame& frame, bool long_headers) noexcept {
  __builtin_prefetch(frame.data);
  if (long_headers) __builtin_prefetch(frame.data + kCacheLineBytes);
}

// As given, with the quota written out.
PollCoreConfig checked(PollCoreConfig config) {
  const auto refuse = [](const std::string& why) { throw std::invalid_argument("poll core: " + why); };
  if (config.ports.empty()) refuse("no port");
  for (std::size_t i = 0; i < config.ports.size(); ++i) {
    const PollPort& port = config.ports[i];
    if (port.queue == nullptr) refuse("port " + std::to_string(i) + " has no queue");
    if (port.addresses.empty() || port.addresses.size() > PollPort::kAddressesMax)
      refuse("port " + std::to_string(i) + " has no address, or more than " +
             std::to_string(PollPort::kAddressesMax));
    for (const PortAddress& address : port.addresses)
      if (address.ip == IpAddress{} || address.ip == Ipv4Address{0} || address.ip.is_multicast())
        refuse("port " + std::to_string(i) + " has no address that a host may have");
    if (port.vlan < PollPort::kAnyVlan || port.vlan > 4094) refuse("a VLAN is 0 to 4094");
    for (std::size_t j = 0; j < i; ++j)
      for (const PortAddress& one : port.addresses)
        for (const PortAddress& other : config.ports[j].addresses)
          if (one.ip == other.ip) refuse("two ports with the same address");
  }
  if (config.connections_max == 0 || config.connections_max > kConnectionsMax)
    refuse("connections: " + std::to_string(config.connections_max) + ", must be 1 to " +
           std::to_string(kConnectionsMax));
  const uint32_t quota = config.tcp.buffer_quota != 0
                             ? std::min(config.tcp.buffer_quota, config.handoff_slots)
                             : config.handoff_slots;
  config.tcp.buffer_quota = quota;  // the listener must not promise more than the connection will hold
  if (quota < buffer_quota_min(config.tcp))
    refuse(std::to_string(quota) + " packet buffers per connection are too few for an MSS of " +
           std::to_string(config.tcp.mss) + ": at least " + std::to_string(buffer_quota_min(config.tcp)));
  if (config.mesh != nullptr && config.index >= config.mesh->cores()) refuse("not one of the mesh's cores");
  return config;
}

}  // namespace

PollCore::PollCore(const PollCoreConfig& config)
    : config_(checked(config)),
      name_("poll " + std::to_string(config.index)),
      listener_(config_.listener, config_.tcp, tcp_counters_),
      pool_(config_.connections_max, config_.handoff_slots, config_.tcp, tcp_counters_, config_.flow_seed),
      accepted_(config.connections_max),
      tenant_changes_(2 * Tenants::kMax),
      reset_limit_(config_.resets_per_second) {
  tenants_.reserve(Tenants::kMax);
  closing_.reserve(Tenants::kMax);
  links_.reserve(config_.ports.size());
  for (const PollPort& port : config_.ports) links_.emplace_back(port, counters_, wire_counters_);
}

PollCore::~PollCore() = default;

// ---- Life

void PollCore::on_start() {
  if (!config_.announce) return;
  for (Link& link : links_) link.announce();
  for (Link& link : links_) link.flush(0);
  announcements_left_ = kAnnouncements - 1;
  announce_ns_ = 0;  // the clock is not known yet: the first turn sets it
}

void PollCore::announce(uint64_t now_ns) noexcept {
  if (announce_requested_.load(std::memory_order_relaxed)) {
    announce_requested_.store(false, std::memory_order_relaxed);
    announcements_left_ = kAnnouncements;
    announce_ns_ = now_ns;
  }
  if (now_ns < announce_ns_) return;
  if (announce_ns_ == 0) {
    announce_ns_ = now_ns + kAnnounceNs;
    return;
  }
  for (Link& link : links_) link.announce();
  announce_ns_ = --announcements_left_ > 0 ? now_ns + kAnnounceNs : kNever;
}

void PollCore::on_stop() noexcept {
  // Deadlines do not matter to a connection that is aborted, so any time will do.
  abort_all(0);
  // The workers have stopped: what they did not release is released now.
  for (uint32_t i = 0; i < pool_.used(); ++i) pool_[pool_.at(i)].handoff.detach();
  // Each is told, also when they are more than the port takes at once.
  auto until = std::chrono::steady_clock::now() + kLastWords;
  for (uint32_t open = pool_.open_count();; open = pool_.open_count()) {
    for (uint32_t i = pool_.used(); i-- > 0;) serve(pool_.at(i), 0);
    bool flushed = true;
    for (Link& link : links_) {
      link.flush(0);
      flushed = flushed && link.flushed();
    }
    if (pool_.open_count() == 0 && flushed) break;
    const auto now = std::chrono::steady_clock::now();
    if (pool_.open_count() < open) until = now + kLastWords;
    if (now >= until) break;
  }
  if (config_.mesh != nullptr) {
    PollMesh::Forwarded item;
    for (uint32_t from = 0; from < config_.mesh->cores(); ++from)
      while (from != config_.index && config_.mesh->ring(from, config_.index).pop(item))
        drop(item.frame.buffer);
  }
  for (Link& link : links_) link.drop_output();
  free_dropped();
}

uint32_t PollCore::do_work(uint64_t now_ns) noexcept {
  counters_.add(PollCounter::turns);
  // Where the workers stand is on lines of theirs; they come while frames are parsed.
  pool_.prefetch_visited(kVisitsPerBusyTurn);
  const uint32_t asked = attention_asked_.load(std::memory_order_acquire);  // pairs with look_at_tenants()
  if (asked != attention_given_) [[unlikely]]
    take_tenant_changes();
  uint32_t work = 0;
  for (uint32_t port = 0; port < links_.size(); ++port) work += receive(port, now_ns);
  if (config_.mesh != nullptr) work += adopt_forwarded(now_ns);
  if (segments_ok_ > 0) wire_counters_.add(WireCounter::segment_ok, std::exchange(segments_ok_, 0));
  work += visit_some(work > 0 ? kVisitsPerBusyTurn : kVisitsPerTurn, now_ns);
  work += serve_touched(now_ns);
  if (now_ns >= next_deadline_ns_) expire_timers(now_ns);
  if (now_ns >= listener_.next_deadline_ns())
    while (can_send() && listener_.poll_output(now_ns, out_)) link_of(out_.tuple.local_ip).transmit(out_);
  if (!closing_.empty()) [[unlikely]]
    reset_half_open();
  if (announce_ns_ <= now_ns || announce_requested_.load(std::memory_order_relaxed)) [[unlikely]]
    announce(now_ns);
  if (resets_.pending()) [[unlikely]]
    step_reset_mode(now_ns);
  if (asked != attention_given_) [[unlikely]] {
    tell_of_silent_peers();
    attention_given_ = asked;
  }
  for (Link& link : links_) link.flush(now_ns);
  free_dropped();
  return work;
}

// ---- Tenants

void PollCore::take_tenant_changes() noexcept {
  TenantChange change;
  while (tenant_changes_.pop(change)) {
    Tenant& tenant = *change.tenant;
    switch (change.kind) {
      case TenantChange::Kind::open:
        // A handshake that was begun with an earlier tenant of this port must not end as one with this
        // tenant. Its peer gets RST for what it says next.
        while (listener_.reset_one(tenant.config().port, out_)) {
          if (can_send()) link_of(out_.tuple.local_ip).transmit(out_);
        }
        tenants_.push_back(&tenant);
        tenant.set_state(config_.index, Tenant::State::listening);
        break;
      case TenantChange::Kind::close:
        std::erase(tenants_, &tenant);
        closing_.push_back(&tenant);
        break;
      case TenantChange::Kind::keep_silent:
        tenant.keep_silent(config_.index);
        listener_.keep_silent(tenant.config().port, tenant.config_at(config_.index).first_bytes_ns);
        break;
    }
  }
}

void PollCore::reset_half_open() noexcept {
  while (!closing_.empty() && can_send()) {
    Tenant& tenant = *closing_.back();
    if (tenant_on(tenant.config().port) == nullptr && listener_.reset_one(tenant.config().port, out_)) {
      link_of(out_.tuple.local_ip).transmit(out_);
      continue;
    }
    closing_.pop_back();
    // The control thread may destroy it when it is gone.
    tenant.set_state(config_.index,
                     tenant.places(config_.index) == 0 ? Tenant::State::gone : Tenant::State::closed);
  }
}

Tenant* PollCore::tenant_on(uint16_t local_port) const noexcept {
  for (Tenant* const tenant : tenants_)
    if (tenant->config().port == local_port) return tenant;
  return nullptr;
}

void PollCore::give_place_back(Tenant& tenant) noexcept {
  tenant.give_place(config_.index);
  if (tenant.places(config_.index) == 0 && tenant.state(config_.index) == Tenant::State::closed)
    tenant.set_state(config_.index, Tenant::State::gone);
}

// After the frames of a turn: who spoke in it is in accepted_ already.
void PollCore::tell_of_silent_peers() noexcept {
  for (Tenant* const tenant : tenants_) {
    Tenant::Silence& silence = tenant->silence(config_.index);
    const uint32_t asked = tenant->silence_asked().load(std::memory_order_relaxed);
    if (silence.answered.load(std::memory_order_relaxed) == asked) continue;
    silence.oldest_ns.store(listener_.silent_since_ns(tenant->config().port), std::memory_order_relaxed);
    silence.answered.store(asked, std::memory_order_release);  // pairs with SilentPeers::oldest_ns()
  }
}

// ---- Receiving

uint32_t PollCore::receive(uint32_t port_index, uint64_t now_ns) noexcept {
  const uint32_t received = links_[port_index].queue().rx_burst(frames_);
  if (received == 0) return 0;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < std::min(kPrefetchAhead, received); ++i)
    prefetch_headers(frames_[i], long_headers_);
  for (uint32_t i = 0; i < received; ++i) {
    if (i + kPrefetchAhead < received) prefetch_headers(frames_[i + kPrefetchAhead], long_headers_);
    bytes += frames_[i].frame_len;
    if (!take_predicted(frames_[i], port_index, now_ns)) on_frame(frames_[i], port_index, false, now_ns);
  }
  counters_.add(PollCounter::bursts);
  if (received == kBurst) counters_.add(PollCounter::bursts_full);
  counters_.add(PollCounter::frames, received);
  counters_.add(PollCounter::frame_bytes, bytes);
  return received;
}

uint32_t PollCore::adopt_forwarded(uint64_t now_ns) noexcept {
  uint32_t adopted = 0;
  PollMesh::Forwarded item;
  for (uint32_t from = 0; from < config_.mesh->cores(); ++from) {
    if (from == config_.index) continue;
    SpscRing<PollMesh::Forwarded>& ring = config_.mesh->ring(from, config_.index);
    for (uint32_t i = 0; i < kAdoptMax && ring.pop(item); ++i) {
      ++adopted;
      Frame own;
      if (item.port >= links_.size() || !links_[item.port].queue().adopt(item.frame, own)) {
        counters_.add(PollCounter::adopt_dropped);
        continue;
      }
      counters_.add(PollCounter::frames_adopted);
      on_frame(own, item.port, true, now_ns);
    }
    PollMesh::Neighbour neighbour;
    SpscRing<PollMesh::Neighbour>& heard = config_.mesh->neighbours(from, config_.index);
    for (uint32_t i = 0; i < kAdoptMax && heard.pop(neighbour); ++i)
      counters_.add(PollCounter::neighbours_moved, pool_.move(neighbour.port, neighbour.ip, neighbour.mac));
  }
  return adopted;
}

// The segment every bulk sender sends nearly always: the next one of the connection that the last one was of.
// What on_frame() would check first has been checked on the frame whose headers these equal.
bool PollCore::take_predicted(const Frame& frame, uint32_t port_index, uint64_t now_ns) noexcept {
  TcpInOrder segment;
  if (predicted_index_ == ConnectionPool::kNone || predicted_port_ != port_index || frame.nb_segs != 1 ||
      frame.l4_checksum != ChecksumState::good ||
      (frame.ip_checksum != ChecksumState::good && predicted_headers_.is_ipv4()) ||
      !predicted_headers_.matches(frame.data, frame.data_len, segment))
    return false;
  Slot& slot = pool_[predicted_index_];
  if (!slot.tcp.on_in_order(segment, frame.data + predicted_headers_.header_bytes(), frame.buffer, now_ns))
    return false;
  ++segments_ok_;
  pool_.touch(predicted_index_);
  return true;
}

void PollCore::on_frame(const Frame& frame, uint32_t port_index, bool adopted, uint64_t now_ns) noexcept {
  const uint32_t frame_bytes = frame.nb_segs == 1 ? frame.data_len : frame.frame_len;
  const WireCounter fate = parse_segment({frame.data, frame.data_len}, frame_bytes, segment_);
  if (fate == WireCounter::segment_ok) [[likely]]
    return on_tcp(frame, port_index, adopted, now_ns);
  wire_counters_.add(fate);
  if (fate == WireCounter::arp) on_arp(frame, port_index, now_ns);
  if (fate == WireCounter::icmp) links_[port_index].on_icmp(frame, now_ns);
  if (fate == WireCounter::icmp6) on_icmp6(frame, port_index, now_ns);
  drop(frame.buffer);
}

void PollCore::on_tcp(const Frame& frame, uint32_t port_index, bool adopted, uint64_t now_ns) noexcept {
  // 1. Whose is it? A predecessor may have had another address.
  Link& link = links_[port_index];
  if (resets_.any() && !link.has(segment_.tuple.local_ip) && resets_.answers_for(segment_.tuple.local_ip) &&
      link.takes(segment_.link))
    return on_lost(frame, port_index, now_ns);
  if (!link.takes(segment_.link, segment_.tuple.local_ip)) return drop(frame.buffer);
  // 2. Another core's? It looks at the checksums itself.
  const uint32_t index = pool_.find(segment_.tuple);
  if (index == ConnectionPool::kNone && !adopted && forwarded(frame, port_index)) return;
  // 3. Undamaged?
  std::span<Slice> payload;
  if (frame.nb_segs == 1 && frame.l4_checksum == ChecksumState::good &&
      (frame.ip_checksum == ChecksumState::good || !segment_.tuple.is_ipv4())) [[likely]] {
    ++segments_ok_;
    slices_[0] = {frame.data + segment_.payload_offset, frame.buffer, segment_.payload_length,
                  StreamEnd::none};
    if (segment_.payload_length > 0)
      payload = {slices_.data(), 1};
    else
      drop(frame.buffer);
  } else {
    const std::span<Slice> buffers = take_apart(frame);
    if (buffers.empty()) return;
    if (!checksums_ok(frame, buffers)) return drop_all(buffers);
    payload = payload_of(buffers);
  }
  // 4. Known?
  if (resets_.any() && index == ConnectionPool::kNone) {
    // A SYN comes from a successor on the same port: the connection of old is gone.
    const bool anew = (segment_.flags & (tcp_flag::syn | tcp_flag::ack)) == tcp_flag::syn;
    const bool lost = !anew && resets_.is_lost(segment_.tuple);
    resets_.on_segment(segment_.tuple, segment_.has(tcp_flag::rst) || anew, now_ns);
    if (lost) {
      counters_.add(PollCounter::resets_in_reset_mode);
      answer_with_reset(port_index, now_ns);
      return drop_all(payload);
    }
  }
  if (index == ConnectionPool::kNone) return on_unknown(port_index, payload, now_ns);
  // The frame may be the port's again when deliver() returns.
  long_headers_ = segment_.payload_offset > HeaderMatch::kHeaderBytes;
  predicted_index_ = ConnectionPool::kNone;
  if (!resets_.refusing() && frame.nb_segs == 1 && HeaderMatch::fits(segment_, frame.data)) {
    predicted_headers_.learn(segment_, frame.data);
    predicted_index_ = index;
    predicted_port_ = port_index;
  }
  deliver(index, port_index, payload, now_ns);
}

// For an address of the predecessor's that is not ours. Nothing of it is read but the headers, so a checksum
// is looked at only where the port has.
void PollCore::on_lost(const Frame& frame, uint32_t port_index, uint64_t now_ns) noexcept {
  const bool damaged = (frame.ip_checksum == ChecksumState::bad && segment_.tuple.is_ipv4()) ||
                       frame.l4_checksum == ChecksumState::bad;
  if (!damaged && resets_.is_lost(segment_.tuple)) {
    resets_.on_segment(segment_.tuple, segment_.has(tcp_flag::rst), now_ns);
    counters_.add(PollCounter::resets_in_reset_mode);
    answer_with_reset(port_index, now_ns);
  }
  drop(frame.buffer);
}

std::span<Slice> PollCore::take_apart(const Frame& frame) noexcept {
  if (frame.nb_segs == 1) [[likely]] {
    slices_[0] = {frame.data, frame.buffer, frame.data_len, StreamEnd::none};
    return {slices_.data(), 1};
  }
  counters_.add(PollCounter::frames_chained);
  const uint32_t count = links_.front().queue().unchain(frame, slices_);
  if (count == 0) {
    counters_.add(PollCounter::chain_too_long);
    drop(frame.buffer);
    return {};
  }
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < count; ++i) bytes += slices_[i].length;
  if (bytes < uint64_t{segment_.payload_offset} + segment_.payload_length) {
    wire_counters_.add(WireCounter::ip_length_bad);
    drop_all({slices_.data(), count});
    return {};
  }
  return {slices_.data(), count};
}

bool PollCore::checksums_ok(const Frame& frame, std::span<const Slice> buffers) noexcept {
  if (frame.ip_checksum != ChecksumState::good && segment_.tuple.is_ipv4() &&
      (frame.ip_checksum == ChecksumState::bad || !ip_checksum_ok(segment_, {frame.data, frame.data_len}))) {
    wire_counters_.add(WireCounter::ip_checksum_bad);
    return false;
  }
  bool good = frame.l4_checksum == ChecksumState::good;
  if (frame.l4_checksum == ChecksumState::unknown) {
    counters_.add(PollCounter::checksums_in_software);
    std::array<Bytes, kFrameSegmentsMax> pieces;
    for (std::size_t i = 0; i < buffers.size(); ++i) pieces[i] = {buffers[i].data, buffers[i].length};
    good = tcp_checksum_ok(segment_, std::span<const Bytes>{pieces}.first(buffers.size()));
  }
  if (good)
    ++segments_ok_;
  else
    wire_counters_.add(WireCounter::tcp_checksum_bad);
  return good;
}

std::span<Slice> PollCore::payload_of(std::span<Slice> buffers) noexcept {
  uint32_t skip = segment_.payload_offset;
  uint32_t left = segment_.payload_length;
  std::size_t kept = 0;
  for (const Slice& buffer : buffers) {
    Slice slice = buffer;
    const uint32_t headers = std::min(skip, slice.length);
    skip -= headers;
    slice.data += headers;
    slice.length = std::min(slice.length - headers, left);  // what is beyond is Ethernet's padding
    left -= slice.length;
    if (slice.length == 0)
      drop(slice.buffer);
    else
      buffers[kept++] = slice;
  }
  return buffers.first(kept);
}

void PollCore::deliver(uint32_t index, uint32_t port_index, std::span<Slice> payload,
                       uint64_t now_ns) noexcept {
  const TcpCounter fate = pool_[index].tcp.on_segment(segment_, payload, now_ns);
  for (const Slice& slice : payload)
    if (slice.buffer != nullptr) drop(slice.buffer);
  pool_.touch(index);
  if (fate == TcpCounter::connection_closed) answer_with_reset(port_index, now_ns);
  if (fate == TcpCounter::time_wait_reuse) {
    close_connection(index);
    on_unknown(port_index, {}, now_ns);
  }
}

// ---- Segments without a connection

bool PollCore::forwarded(const Frame& frame, uint32_t port_index) noexcept {
  if (config_.mesh == nullptr) return false;
  const uint32_t owner = config_.mesh->owners().find(segment_.tuple);
  if (owner == config_.index || owner >= config_.mesh->cores()) return false;
  if (config_.mesh->ring(config_.index, owner).push({frame, port_index})) {
    counters_.add(PollCounter::frames_forwarded);
  } else {
    counters_.add(PollCounter::forward_dropped);
    drop(frame.buffer);
  }
  return true;
}

void PollCore::on_unknown(uint32_t port_index, std::span<Slice> payload, uint64_t now_ns) noexcept {
  // RFC 9293 section 3.9.2.3: no peer has such a source address. Group addresses have been refused with the
  // header.
  const IpAddress& from = segment_.tuple.remote_ip;
  if (from == segment_.tuple.local_ip || from.is_loopback()) {
    counters_.add(PollCounter::impossible_source);
    return drop_all(payload);
  }
  if (resets_.refusing()) counters_.add(PollCounter::resets_in_reset_mode);
  Tenant* const tenant = resets_.refusing() ? nullptr : tenant_on(segment_.tuple.local_port);
  const uint32_t free = tenant == nullptr ? 0 : std::min(pool_.free(), tenant->places_free(config_.index));
  if (tenant == nullptr && config_.awaited != nullptr && !resets_.refusing() && segment_.has(tcp_flag::syn) &&
      !segment_.has(tcp_flag::ack) && config_.awaited->leave_unanswered(segment_.tuple.local_port)) {
    counters_.add(PollCounter::syns_unanswered);
    return drop_all(payload);
  }
  TcpHandshake handshake;
  if (config_.mesh != nullptr)
    listener_.set_cookies_in_flight_until_ns(config_.mesh->cookies_in_flight_until_ns());
  const TcpListener::Result result =
      listener_.on_segment(segment_, tenant == nullptr ? nullptr : &tenant->config_at(config_.index), free,
                           now_ns, out_, handshake);
  switch (result.action) {
    case TcpListener::Action::none:
      break;
    case TcpListener::Action::reply:
      answer(port_index, now_ns);
      if (config_.mesh != nullptr && result.fate == TcpCounter::syn)
        config_.mesh->owners().offer(segment_.tuple, config_.index);
      if (config_.mesh != nullptr && result.fate == TcpCounter::syn_cookie_sent)
        config_.mesh->set_cookies_in_flight_until_ns(listener_.cookies_in_flight_until_ns());
      break;
    case TcpListener::Action::accept:
      return open_connection(handshake, *tenant, port_index, payload, now_ns);
  }
  drop_all(payload);
}

void PollCore::answer_with_reset(uint32_t port_index, uint64_t now_ns) noexcept {
  if (reset_for(segment_, out_)) answer(port_index, now_ns);
}

void PollCore::answer(uint32_t port_index, uint64_t now_ns) noexcept {
  // In reset mode each source is to hear of it.
  if ((out_.flags & tcp_flag::rst) != 0 && !resets_.any() && !reset_limit_.take(now_ns))
    return counters_.add(PollCounter::resets_limited);
  links_[port_index].transmit(out_);
}

void PollCore::on_arp(const Frame& frame, uint32_t port_index, uint64_t now_ns) noexcept {
  Link& link = links_[port_index];
  ArpPacket heard;
  if (!link.on_arp(frame, heard, now_ns)) return;
  on_neighbour({heard.sender_ip, heard.sender_mac}, port_index);
  if (!resets_.any() || link.has(heard.target_ip)) return;
  // In the name of a predecessor with another address: an answer to what was asked, or a question.
  resets_.on_neighbour(heard.target_ip, heard.sender_ip, heard.sender_mac);
  ArpPacket reply;
  if (!resets_.answers_for(heard.target_ip) || !arp_reply_for(heard, link.mac(), heard.target_ip, reply))
    return;
  if (link.send(reply)) counters_.add(PollCounter::arp_replies);
}

void PollCore::on_icmp6(const Frame& frame, uint32_t port_index, uint64_t now_ns) noexcept {
  Link& link = links_[port_index];
  NdpPacket heard;
  if (!link.on_icmp6(frame, heard, now_ns)) return;
  const std::optional<NeighbourWord> word = Link::word_of(heard);
  if (word) on_neighbour(*word, port_index);
  if (!resets_.any()) return;
  // In the name of a predecessor: an answer to what was asked stands at its address, a question is for it.
  if (word && !link.has(heard.destination))
    resets_.on_neighbour(heard.destination.is_multicast() ? heard.target : heard.destination, word->ip,
                         word->mac);
  NdpPacket reply;
  if (link.has(heard.target) || !resets_.answers_for(heard.target) ||
      !ndp_reply_for(heard, link.mac(), heard.target, reply))
    return;
  if (link.send(reply)) counters_.add(PollCounter::neighbour_replies);
}

void PollCore::on_neighbour(const NeighbourWord& word, uint32_t port_index) noexcept {
  counters_.add(PollCounter::neighbours_moved, pool_.move(port_index, word.ip, word.mac));
  if (config_.mesh != nullptr) {
    for (uint32_t to = 0; to < config_.mesh->cores(); ++to)
      if (to != config_.index)
        static_cast<void>(config_.mesh->neighbours(config_.index, to).push({word.ip, word.mac, port_index}));
  }
  if (!resets_.any()) return;
  for (const PortAddress& address : config_.ports[port_index].addresses)
    resets_.on_neighbour(address.ip, word.ip, word.mac);
}

// ---- Connections

void PollCore::open_connection(const TcpHandshake& handshake, Tenant& tenant, uint32_t port_index,
                               std::span<Slice> payload, uint64_t now_ns) noexcept {
  TcpHandshake agreed = handshake;
  const FourTuple& tuple = handshake.tuple;
  agreed.send_mss = std::min(agreed.send_mss, tuple.is_ipv4() ? kSendMssMax : kSendMssMaxIpv6);
  const uint32_t index =
      pool_.open(agreed, port_index, links_[port_index].next_hop(tuple.local_ip, tuple.remote_ip), now_ns);
  // The listener was told how many are free, so it cannot fail; a bug there must not become one here.
  if (index == ConnectionPool::kNone) {
    answer_with_reset(port_index, now_ns);
    return drop_all(payload);
  }
  if (config_.mesh != nullptr && !config_.mesh->owners().claim(handshake.tuple, config_.index))
    counters_.add(PollCounter::owner_table_full);
  pool_[index].tenant = &tenant;
  tenant.take_place(config_.index);
  Handoff& handoff = pool_[index].handoff;
  handoff.tenant = tenant.id();
  handoff.opened_ns = handshake.syn_ns;
  handoff.poll_core = config_.index;
  static_cast<void>(accepted_.push(&handoff));
  counters_.add(PollCounter::connections_opened);
  deliver(index, port_index, payload, now_ns);
}

void PollCore::close_connection(uint32_t index) noexcept {
  if (!pool_[index].open) return;
  pool_.close(index);
  if (config_.mesh != nullptr) config_.mesh->owners().release(pool_[index].tcp.tuple(), config_.index);
  if (predicted_index_ == index) predicted_index_ = ConnectionPool::kNone;
  counters_.add(PollCounter::connections_closed);
}

uint32_t PollCore::visit_some(uint32_t count, uint64_t now_ns) noexcept {
  uint32_t work = 0;
  count = std::min(count, pool_.used());
  for (uint32_t i = 0; i < count && pool_.used() > 0; ++i) {
    const uint32_t index = pool_.next_visited();
    pool_[index].tcp.take_commands(now_ns);
    work += serve(index, now_ns);
  }
  return work;
}

uint32_t PollCore::serve_touched(uint64_t now_ns) noexcept {
  uint32_t work = 0;
  for (uint32_t index = pool_.take_touched(); index != ConnectionPool::kNone; index = pool_.take_touched())
    work += serve(index, now_ns);
  return work;
}

uint32_t PollCore::serve(uint32_t index, uint64_t now_ns) noexcept {
  Slot& slot = pool_[index];
  uint32_t work = 0;
  for (bool more = true; more;) {
    if (dropped_count_ == kDroppedMax) free_dropped();
    const std::span<void*> room = std::span{dropped_}.subspan(dropped_count_);
    const uint32_t freed = slot.tcp.reclaim(room);
    dropped_count_ += freed;
    work += freed;
    more = freed == room.size();
  }
  Link& link = links_[slot.port];
  // What the connection gives it counts as sent. Without room it keeps it, and is asked again in the next
  // turn.
  bool room = link.ready_or_hopeless();
  bool spoke = false;
  while (room && slot.tcp.poll_output(now_ns, out_)) {
    link.transmit(out_);
    ++work;
    spoke = true;
    room = link.ready_or_hopeless();
  }
  if (spoke && slot.tcp.unanswered(now_ns)) [[unlikely]]
    ask_for_silent_peer(slot, now_ns);
  if (!room) [[unlikely]]
    slot.tcp.publish();
  if (slot.tcp.finished()) {
    close_connection(index);
    Tenant& tenant = *slot.tenant;
    if (pool_.recycle(index)) give_place_back(tenant);
  } else {
    next_deadline_ns_ = std::min(next_deadline_ns_, slot.tcp.next_deadline_ns());
  }
  return work;
}

void PollCore::expire_timers(uint64_t now_ns) noexcept {
  next_deadline_ns_ = kNever;
  // Downwards: recycle() moves the last one, which has been looked at, into the place of the one it frees.
  for (uint32_t i = pool_.used(); i-- > 0;) {
    const uint32_t index = pool_.at(i);
    Slot& slot = pool_[index];
    if (!slot.open) continue;
    const uint64_t deadline_ns = slot.tcp.next_deadline_ns();
    if (deadline_ns <= now_ns)
      serve(index, now_ns);
    else
      next_deadline_ns_ = std::min(next_deadline_ns_, deadline_ns);
  }
}

// Before it is given up: its address, or the gateway's, may be another one now.
void PollCore::ask_for_silent_peer(const Slot& slot, uint64_t now_ns) noexcept {
  links_[slot.port].ask(slot.tcp.tuple().local_ip, slot.whereabouts.next_hop, slot.tcp.link(), now_ns);
}

// ---- Ending

Handoff* PollCore::take_accepted() noexcept {
  Handoff* handoff = nullptr;
  return accepted_.pop(handoff) ? handoff : nullptr;
}

const TcpConnection* PollCore::connection(uint32_t i) const noexcept {
  return i < pool_.size() && pool_[i].open ? &pool_[i].tcp : nullptr;
}

const LostConnection& PollCore::whereabouts(const Handoff& connection) const noexcept {
  return pool_[connection.connection].whereabouts;
}

void PollCore::abort_all(uint64_t now_ns) noexcept {
  for (uint32_t i = pool_.used(); i-- > 0;) {
    const uint32_t index = pool_.at(i);
    if (!pool_[index].open) continue;
    pool_[index].tcp.abort();
    serve(index, now_ns);
  }
}

void PollCore::step_reset_mode(uint64_t now_ns) noexcept {
  if (resets_.look(now_ns)) abort_all(now_ns);
  // More than fits into a port's queue at once would only be dropped.
  for (uint32_t i = 0; i < kProbesPerTurn; ++i) {
    const std::optional<ResetMode::Probe> probe = resets_.poll_output(now_ns);
    if (!probe) break;
    send_probe(*probe, now_ns);
  }
}

void PollCore::send_probe(const ResetMode::Probe& probe, uint64_t now_ns) noexcept {
  const LostConnection& to = *probe.to;
  Link& port = link_of(to.tuple.local_ip);
  FrameAddress link = to.link;
  link.local_mac = port.mac();
  if (probe.kind == ResetMode::Probe::Kind::who_has) {
    static_cast<void>(port.ask_now(to.tuple.local_ip, to.next_hop, link));
    return;
  }
  // Any numbers will do: RFC 5961 section 4.2 has a SYN answered wherever it stands.
  out_ = {};
  out_.tuple = to.tuple;
  out_.link = link;
  out_.seq = SeqNum{static_cast<uint32_t>(now_ns / kNsPerMs)};
  out_.flags = tcp_flag::syn | tcp_flag::ack;
  port.transmit(out_);
  counters_.add(PollCounter::probes_in_reset_mode);
}

// ---- Links and buffers

bool PollCore::can_send() noexcept {
  return std::all_of(links_.begin(), links_.end(), [](Link& link) { return link.ready_or_hopeless(); });
}

Link& PollCore::link_of(const IpAddress& local_ip) noexcept {
  for (Link& link : links_)
    if (link.has(local_ip)) return link;
  return links_.front();
}

void PollCore::drop(void* buffer) noexcept {
  if (dropped_count_ == kDroppedMax) free_dropped();
  dropped_[dropped_count_++] = buffer;
}

void PollCore::drop_all(std::span<const Slice> slices) noexcept {
  for (const Slice& slice : slices) drop(slice.buffer);
}

void PollCore::free_dropped() noexcept {
  if (dropped_count_ == 0) return;
  links_.front().queue().free_bulk({dropped_.data(), dropped_count_});
  dropped_count_ = 0;
}

}  // namespace migrx

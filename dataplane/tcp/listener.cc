#include "dataplane/tcp/listener.h"

#include <sodium/crypto_shorthash.h>

#include <algorithm>
#include <cstring>

namespace migrx {
namespace {

static_assert(crypto_shorthash_KEYBYTES == 16 && crypto_shorthash_BYTES == 8);

constexpr uint32_t kWays = 8;
constexpr uint64_t kSynAckFirstRetryNs = kNsPerSecond;  // RFC 6298 section 2 (2.1)

// What the keyed hash is used for: a value of one kind tells nothing about those of another.
constexpr uint32_t kDomainIsn = 0;
constexpr uint32_t kDomainTimestamp = 1;
constexpr uint32_t kDomainTable = 2;
constexpr uint32_t kDomainCookie = 3;

// SYN cookies, RFC 4987 section 3.6: 24 bits of keyed hash, 5 bits of time, 3 bits of MSS.
constexpr std::array<uint16_t, 8> kCookieMss{216, 536, 1024, 1220, 1360, 1440, 1460, 8960};
constexpr uint64_t kCookieTickNs = 64 * kNsPerSecond;
constexpr uint32_t kCookieTicksMax = 2;
// How long a peer may take from its SYN to repeating a segment that was dropped.
constexpr uint64_t kDoubtNs = 3 * kNsPerSecond;
constexpr uint32_t kCookieHashMask = 0x00ff'ffff;
// With timestamps, the low bits of TSval carry the rest: 4 bits of window scale, 15 for none, and SACK.
constexpr uint32_t kCookieTsBits = 5;
constexpr uint32_t kCookieTsMask = (1U << kCookieTsBits) - 1;
constexpr uint32_t kCookieNoScale = 15;

// What a connection will ever announce. The scale is no coarser than that needs: rounded down by its unit, a
// window of two segments, the least there is, would hold but one.
uint32_t largest_window(const TcpConfig& tcp) noexcept {
  return tcp.buffer_quota == 0 ? tcp.window_bytes : window_for(tcp, tcp.buffer_quota, tcp.mss);
}

bool allows(const TenantConfig& tenant, const IpAddress& peer) noexcept {
  return tenant.allow.empty() || std::any_of(tenant.allow.begin(), tenant.allow.end(),
                                             [&peer](const IpNetwork& n) { return n.contains(peer); });
}

uint16_t sane_mss(const TcpSegment& syn) noexcept {
  // RFC 9293 section 3.7.1: 536, or 1220 with IPv6, when the option is missing. Smaller than 64 would only
  // serve to make us work.
  if (!syn.has_option(tcp_option::mss)) return syn.tuple.is_ipv4() ? uint16_t{536} : uint16_t{1220};
  return std::max(syn.mss, uint16_t{64});
}

void fill_rst(const TcpSegment& segment, OutSegment& out) noexcept {
  out = OutSegment{};
  out.tuple = segment.tuple;
  out.link = segment.link;
  if (segment.has(tcp_flag::ack)) {
    out.seq = segment.ack;
    out.flags = tcp_flag::rst;
  } else {
    out.ack = segment.seq + segment.length();
    out.flags = tcp_flag::rst | tcp_flag::ack;
  }
}

}  // namespace

// Fields of a connection in SYN-RECEIVED, and of one that lives in a cookie only.
struct TcpListener::Entry {
  FourTuple tuple;
  FrameAddress link;
  SeqNum irs;
  SeqNum iss;
  bool used = false;
  bool timestamps = false;
  bool sack = false;
  bool window_scaling = false;
  bool done = false;  // the handshake is; its first bytes are awaited
  uint8_t send_shift = 0;
  uint8_t retries = 0;
  uint16_t mss = 536;
  uint32_t ts_recent = 0;
  uint32_t ts_offset = 0;
  uint32_t ts_val = 0;  // of a cookie's SYN-ACK; otherwise made from the clock
  uint64_t since_ns = 0;
  uint64_t retry_ns = 0;  // or, when done, the end of patience
  uint64_t rtt_ns = 0;    // when done; 0: unknown
};

TcpListener::TcpListener(const ListenerConfig& listener, const TcpConfig& tcp, TcpCounters& counters)
    : listener_(listener),
      tcp_(tcp),
      counters_(counters),
      sets_(std::max(listener.syn_table_entries / kWays, 1U)),
      // The window field of a SYN is never scaled (RFC 7323 section 2.2).
      initial_window_bytes_(std::min(largest_window(tcp), 65535U)),
      receive_shift_(window_scale_for(largest_window(tcp))),
      entries_(std::make_unique<Entry[]>(std::size_t{sets_} * kWays)) {}

TcpListener::~TcpListener() = default;

uint64_t TcpListener::keyed_hash(const FourTuple& tuple, uint32_t domain, uint32_t extra) const noexcept {
  const std::array<uint64_t, 6> in{tuple.remote_ip.high,
                                   tuple.remote_ip.low,
                                   tuple.local_ip.high,
                                   tuple.local_ip.low,
                                   uint64_t{tuple.remote_port} << 16 | tuple.local_port,
                                   uint64_t{domain} << 32 | extra};
  uint64_t out = 0;
  crypto_shorthash(reinterpret_cast<unsigned char*>(&out), reinterpret_cast<const unsigned char*>(in.data()),
                   sizeof in, listener_.secret.data());
  return out;
}

SeqNum TcpListener::initial_sequence(const FourTuple& tuple, uint64_t now_ns) const noexcept {
  // M: a clock of 4 microseconds.
  return SeqNum{static_cast<uint32_t>(now_ns / 4000) +
                static_cast<uint32_t>(keyed_hash(tuple, kDomainIsn, 0))};
}

uint32_t TcpListener::ts_offset(const FourTuple& tuple) const noexcept {
  return static_cast<uint32_t>(keyed_hash(tuple, kDomainTimestamp, 0));
}

TcpListener::Entry* TcpListener::find(const FourTuple& tuple, uint64_t hash) noexcept {
  Entry* const set = &entries_[(hash % sets_) * kWays];
  for (uint32_t i = 0; i < kWays; ++i) {
    if (set[i].used && set[i].tuple == tuple) return &set[i];
  }
  return nullptr;
}

// A free entry of the set; nullptr: the set is full and cookies take over.
TcpListener::Entry* TcpListener::place(uint64_t hash) noexcept {
  Entry* const set = &entries_[(hash % sets_) * kWays];
  Entry* oldest = set;
  for (uint32_t i = 0; i < kWays; ++i) {
    if (!set[i].used) return &set[i];
    if (set[i].since_ns < oldest->since_ns) oldest = &set[i];
  }
  if (listener_.syn_cookies) return nullptr;
  counters_.add(TcpCounter::syn_evicted);
  release(*oldest);
  return oldest;
}

void TcpListener::release(Entry& entry) noexcept {
  entry.used = false;
  --half_open_;
}

TcpListener::Result TcpListener::count(Action action, TcpCounter fate) noexcept {
  counters_.add(fate);
  return {action, fate};
}

TcpListener::Result TcpListener::on_segment(const TcpSegment& segment, const TenantConfig* tenant,
                                            uint32_t connections_free, uint64_t now_ns, OutSegment& reply,
                                            TcpHandshake& handshake) noexcept {
  // CLOSED, to all that nobody listens for (RFC 9293 section 3.10.7.1).
  if (tenant == nullptr) {
    if (segment.has(tcp_flag::rst)) return count(Action::none, TcpCounter::no_connection_rst);
    fill_rst(segment, reply);
    return count(Action::reply, TcpCounter::no_connection);
  }
  const Host host{*tenant, connections_free};
  if (half_open_ > 0) {
    if (Entry* const entry = find(segment.tuple, keyed_hash(segment.tuple, kDomainTable, 0))) {
      return on_half_open(*entry, segment, host, now_ns, reply, handshake);
    }
  }

  // RFC 9293 section 3.10.7.2, LISTEN. First, check for a RST.
  if (segment.has(tcp_flag::rst)) return count(Action::none, TcpCounter::no_connection_rst);

  // Second, check for an ACK: it belongs to a cookie, or nowhere.
  if (segment.has(tcp_flag::ack)) {
    Entry entry;
    if (!segment.has(tcp_flag::syn) && now_ns < cookies_until_ns_ && open_cookie(segment, now_ns, entry)) {
      return on_cookie(entry, segment, host, now_ns, reply, handshake);
    }
    if (now_ns < cookies_in_flight_until_ns_) return count(Action::none, TcpCounter::no_connection_doubtful);
    fill_rst(segment, reply);
    return count(Action::reply, TcpCounter::no_connection);
  }

  // Third, check for a SYN.
  if (segment.has(tcp_flag::syn)) return on_syn(segment, host, now_ns, reply);

  // Fourth, other data or control: a segment without SYN and ACK.
  fill_rst(segment, reply);
  return count(Action::reply, TcpCounter::no_connection);
}

TcpListener::Result TcpListener::on_syn(const TcpSegment& segment, const Host& host, uint64_t now_ns,
                                        OutSegment& reply) noexcept {
  if (segment.has(tcp_flag::fin))
    return count(Action::none, TcpCounter::handshake_ignored);  // nobody's handshake
  if (!allows(host.tenant, segment.tuple.remote_ip)) {
    fill_rst(segment, reply);
    return count(Action::reply, TcpCounter::syn_refused_peer);
  }
  // Half-open connections do not count against the limit, or a flood of them would keep everybody out.
  if (host.connections_free == 0 && first_bytes_min(host) == 0) {
    fill_rst(segment, reply);
    return count(Action::reply, TcpCounter::syn_refused_limit);
  }
  Entry* const entry = place(keyed_hash(segment.tuple, kDomainTable, 0));
  if (entry == nullptr) {
    Entry cookie;
    offer(segment, cookie);
    make_cookie(segment, cookie, now_ns);
    fill_syn_ack(cookie, now_ns, reply);
    cookies_until_ns_ = now_ns + (kCookieTicksMax + 1) * kCookieTickNs;
    set_cookies_in_flight_until_ns(now_ns + kDoubtNs);
    return count(Action::reply, TcpCounter::syn_cookie_sent);
  }
  offer(segment, *entry);
  entry->iss = initial_sequence(segment.tuple, now_ns);
  entry->used = true;
  entry->done = false;
  entry->retries = 0;
  entry->since_ns = now_ns;
  entry->retry_ns = now_ns + kSynAckFirstRetryNs;
  ++half_open_;
  next_deadline_ns_ = std::min(next_deadline_ns_, entry->retry_ns);
  fill_syn_ack(*entry, now_ns, reply);
  return count(Action::reply, TcpCounter::syn);
}

// What the SYN offers and we take.
void TcpListener::offer(const TcpSegment& segment, Entry& entry) const noexcept {
  entry.tuple = segment.tuple;
  entry.link = segment.link;
  entry.irs = segment.seq;
  entry.mss = sane_mss(segment);
  entry.timestamps = tcp_.timestamps && segment.has_option(tcp_option::timestamps);
  entry.sack = tcp_.sack && segment.has_option(tcp_option::sack_permitted);
  entry.window_scaling = tcp_.window_scaling && segment.has_option(tcp_option::window_scale);
  entry.send_shift = entry.window_scaling ? std::min(segment.window_scale, uint8_t{14}) : uint8_t{0};
  entry.ts_recent = entry.timestamps ? segment.ts_val : 0;
  entry.ts_offset = ts_offset(segment.tuple);
  entry.ts_val = 0;
}

void TcpListener::fill_syn_ack(const Entry& entry, uint64_t now_ns, OutSegment& out) const noexcept {
  out = OutSegment{};
  out.tuple = entry.tuple;
  out.link = entry.link;
  out.seq = entry.iss;
  out.ack = entry.irs + 1;
  out.flags = tcp_flag::syn | tcp_flag::ack;
  out.window = static_cast<uint16_t>(initial_window_bytes_);
  out.options = tcp_option::mss;
  out.mss = mss_for(tcp_, entry.tuple);
  if (entry.sack) out.options |= tcp_option::sack_permitted;
  if (entry.window_scaling) {
    out.options |= tcp_option::window_scale;
    out.window_scale = receive_shift_;
  }
  if (entry.timestamps) {
    out.options |= tcp_option::timestamps;
    out.ts_val = entry.ts_val != 0 ? entry.ts_val : timestamp_at(now_ns, entry.ts_offset);
    out.ts_ecr = entry.ts_recent;
  }
}

void TcpListener::fill_ack(const Entry& entry, uint64_t now_ns, OutSegment& out) const noexcept {
  out = OutSegment{};
  out.tuple = entry.tuple;
  out.link = entry.link;
  out.seq = entry.iss + 1;
  out.ack = entry.irs + 1;
  out.flags = tcp_flag::ack;
  out.window =
      static_cast<uint16_t>(initial_window_bytes_ >> (entry.window_scaling ? receive_shift_ : uint8_t{0}));
  if (entry.timestamps) {
    out.options = tcp_option::timestamps;
    out.ts_val = timestamp_at(now_ns, entry.ts_offset);
    out.ts_ecr = entry.ts_recent;
  }
}

// RFC 9293 section 3.10.7.4 for SYN-RECEIVED, entered from LISTEN.
TcpListener::Result TcpListener::on_half_open(Entry& entry, const TcpSegment& segment, const Host& host,
                                              uint64_t now_ns, OutSegment& reply,
                                              TcpHandshake& handshake) noexcept {
  const SeqNum rcv_nxt = entry.irs + 1;
  const bool in_window = segment.seq >= rcv_nxt && segment.seq <= rcv_nxt + initial_window_bytes_;

  // The peer did not hear our SYN-ACK, or has started over since (then the old half is of no use to anybody).
  if ((segment.flags & (tcp_flag::syn | tcp_flag::ack | tcp_flag::rst)) == tcp_flag::syn) {
    if (segment.seq != entry.irs) {
      release(entry);
      return on_syn(segment, host, now_ns, reply);
    }
    if (entry.timestamps && segment.has_option(tcp_option::timestamps)) entry.ts_recent = segment.ts_val;
    fill_syn_ack(entry, now_ns, reply);
    return count(Action::reply, TcpCounter::syn_repeated);
  }

  // A peer whose handshake is done and who has said nothing asks whether we are there (RFC 9293
  // section 3.8.4).
  if (entry.done && segment.seq + 1 == rcv_nxt && segment.payload_length <= 1 &&
      (segment.flags & ~tcp_flag::psh) == tcp_flag::ack && segment.ack == entry.iss + 1) {
    entry.link = segment.link;
    fill_ack(entry, now_ns, reply);
    return count(Action::reply, TcpCounter::keepalive_probe);
  }

  // First, check sequence number.
  if (!in_window) return count(Action::none, TcpCounter::handshake_ignored);

  // Second, check the RST bit: RFC 5961 section 3.2 wants it exact.
  if (segment.has(tcp_flag::rst)) {
    if (segment.seq != rcv_nxt) return count(Action::none, TcpCounter::rst_ignored);
    release(entry);
    return count(Action::none, TcpCounter::handshake_reset);
  }

  // Fourth, check the SYN bit: a SYN-ACK has no business here.
  if (segment.has(tcp_flag::syn)) return count(Action::none, TcpCounter::handshake_ignored);

  // Fifth, check the ACK field.
  if (!segment.has(tcp_flag::ack)) return count(Action::none, TcpCounter::handshake_ignored);
  if (segment.ack != entry.iss + 1) {
    fill_rst(segment, reply);
    return count(Action::reply, TcpCounter::handshake_bad_ack);
  }
  if (entry.timestamps && segment.has_option(tcp_option::timestamps) &&
      static_cast<int32_t>(segment.ts_val - entry.ts_recent) < 0) {
    return count(Action::none, TcpCounter::paws_rejected);
  }
  if (!first_bytes_suffice(segment, rcv_nxt, host)) {
    // A FIN beyond a hole says that there are bytes to come.
    if (segment.has(tcp_flag::fin) && segment.seq == rcv_nxt && segment.payload_length == 0) {
      fill_rst(segment, reply);
      release(entry);
      return count(Action::reply, TcpCounter::handshake_reset);
    }
    await_first_bytes(entry, host.tenant, now_ns);
    return count(Action::none, TcpCounter::first_bytes_awaited);
  }
  if (host.connections_free == 0) {
    if (first_bytes_min(host) > 0) {
      await_first_bytes(entry, host.tenant, now_ns);
      return count(Action::none, TcpCounter::first_bytes_dropped);
    }
    fill_rst(segment, reply);
    release(entry);
    return count(Action::reply, TcpCounter::syn_refused_limit);
  }
  fill_handshake(entry, segment, now_ns, handshake);
  release(entry);
  return count(Action::accept, TcpCounter::handshake_done);
}

// The last segment of a handshake that only a cookie remembers.
TcpListener::Result TcpListener::on_cookie(Entry& cookie, const TcpSegment& segment, const Host& host,
                                           uint64_t now_ns, OutSegment& reply,
                                           TcpHandshake& handshake) noexcept {
  const bool enough = first_bytes_suffice(segment, cookie.irs + 1, host);
  if (enough && host.connections_free > 0) {
    fill_handshake(cookie, segment, now_ns, handshake);
    return count(Action::accept, TcpCounter::handshake_done);
  }
  const bool left = segment.has(tcp_flag::fin) && segment.payload_length == 0;
  if (first_bytes_min(host) == 0 || left) {
    fill_rst(segment, reply);
    return count(Action::reply, enough ? TcpCounter::syn_refused_limit : TcpCounter::handshake_reset);
  }
  // No entry is given up for this peer: the oldest may be that of an honest peer whose ACK is under way and
  // who would be reset. Without an entry the cookie is as good with the first bytes.
  if (Entry* const entry = place(keyed_hash(segment.tuple, kDomainTable, 0))) {
    *entry = cookie;
    entry->used = true;
    ++half_open_;
    await_first_bytes(*entry, host.tenant, now_ns);
  }
  return count(Action::none, enough ? TcpCounter::first_bytes_dropped : TcpCounter::first_bytes_awaited);
}

// Departure: RFC 9293 section 3.10.7.4 enters ESTABLISHED with the ACK. To the peer nothing looks different:
// what is not acknowledged it sends again.
bool TcpListener::first_bytes_suffice(const TcpSegment& segment, SeqNum rcv_nxt,
                                      const Host& host) const noexcept {
  if (first_bytes_min(host) == 0) return true;
  if (segment.payload_length == 0) return false;
  if (host.connections_free > host.tenant.places_reserved) return true;
  return segment.seq == rcv_nxt && segment.payload_length >= first_bytes_min(host);
}

void TcpListener::await_first_bytes(Entry& entry, const TenantConfig& tenant, uint64_t now_ns) noexcept {
  if (entry.done) return;
  entry.done = true;
  entry.rtt_ns =
      entry.retries == 0 && entry.since_ns != 0 ? std::max<uint64_t>(now_ns - entry.since_ns, 1) : 0;
  entry.retry_ns = now_ns + tenant.first_bytes_ns;
  next_deadline_ns_ = std::min(next_deadline_ns_, entry.retry_ns);
}

uint64_t TcpListener::silent_since_ns(uint16_t local_port) const noexcept {
  uint64_t oldest_ns = kNever;
  for (uint32_t i = 0; half_open_ > 0 && i < sets_ * kWays; ++i)
    if (entries_[i].used && entries_[i].done && entries_[i].since_ns != 0 &&
        entries_[i].tuple.local_port == local_port)
      oldest_ns = std::min(oldest_ns, entries_[i].since_ns);
  return oldest_ns;
}

void TcpListener::fill_handshake(const Entry& entry, const TcpSegment& segment, uint64_t now_ns,
                                 TcpHandshake& handshake) const noexcept {
  handshake.tuple = entry.tuple;
  handshake.link = segment.link;
  handshake.syn_ns = entry.since_ns;
  handshake.irs = entry.irs;
  handshake.iss = entry.iss;
  handshake.send_mss = std::min(entry.mss, mss_for(tcp_, entry.tuple));
  handshake.send_shift = entry.send_shift;
  handshake.receive_shift = entry.window_scaling ? receive_shift_ : uint8_t{0};
  handshake.timestamps = entry.timestamps;
  handshake.sack = entry.sack;
  handshake.ts_recent = entry.timestamps ? entry.ts_recent : 0;
  handshake.ts_offset = entry.ts_offset;
  handshake.send_window = uint32_t{segment.window} << entry.send_shift;
  handshake.receive_window = initial_window_bytes_;
  const bool timed = entry.retries == 0 && entry.since_ns != 0;
  handshake.rtt_ns = entry.done ? entry.rtt_ns : timed ? std::max<uint64_t>(now_ns - entry.since_ns, 1) : 0;
}

// The ISN of a cookie: hash(tuple, irs, tick) | tick | MSS index.
void TcpListener::make_cookie(const TcpSegment& segment, Entry& entry, uint64_t now_ns) const noexcept {
  const auto tick = static_cast<uint32_t>(now_ns / kCookieTickNs);
  const auto above = std::upper_bound(kCookieMss.begin() + 1, kCookieMss.end(), entry.mss);
  const auto index = static_cast<uint32_t>(above - kCookieMss.begin() - 1);
  entry.mss = kCookieMss[index];
  const auto hash =
      static_cast<uint32_t>(keyed_hash(segment.tuple, kDomainCookie + tick, segment.seq.value()));
  entry.iss = SeqNum{((hash & kCookieHashMask) << 8) | ((tick & 31) << 3) | index};
  if (entry.timestamps) {
    const uint32_t scale = entry.window_scaling ? entry.send_shift : kCookieNoScale;
    const uint32_t bits = (scale << 1) | (entry.sack ? 1U : 0U);
    // Never ahead of the clock: a later TSval of the connection must not be smaller.
    uint32_t ts = timestamp_at(now_ns, entry.ts_offset);
    if ((ts & kCookieTsMask) < bits) ts -= kCookieTsMask + 1;
    entry.ts_val = (ts & ~kCookieTsMask) | bits;
  } else {
    // Nothing would tell us at the end what was agreed.
    entry.sack = entry.window_scaling = false;
    entry.send_shift = 0;
  }
}

bool TcpListener::open_cookie(const TcpSegment& segment, uint64_t now_ns, Entry& entry) const noexcept {
  const uint32_t cookie = segment.ack.value() - 1;
  const auto now_tick = static_cast<uint32_t>(now_ns / kCookieTickNs);
  const uint32_t age = (now_tick - (cookie >> 3)) & 31;
  if (age > kCookieTicksMax) return false;
  const SeqNum irs = segment.seq - 1;
  const auto hash =
      static_cast<uint32_t>(keyed_hash(segment.tuple, kDomainCookie + (now_tick - age), irs.value()));
  if (((hash ^ (cookie >> 8)) & kCookieHashMask) != 0) return false;
  entry = Entry{};
  entry.tuple = segment.tuple;
  entry.link = segment.link;
  entry.irs = irs;
  entry.iss = SeqNum{cookie};
  entry.mss = kCookieMss[cookie & 7];
  entry.ts_offset = ts_offset(segment.tuple);
  if (tcp_.timestamps && segment.has_option(tcp_option::timestamps)) {
    entry.timestamps = true;
    entry.ts_recent = segment.ts_val;
    entry.sack = tcp_.sack && (segment.ts_ecr & 1) != 0;
    const uint32_t scale = (segment.ts_ecr & kCookieTsMask) >> 1;
    entry.window_scaling = tcp_.window_scaling && scale != kCookieNoScale;
    entry.send_shift = entry.window_scaling ? static_cast<uint8_t>(std::min(scale, 14U)) : uint8_t{0};
  }
  return true;
}

bool TcpListener::poll_output(uint64_t now_ns, OutSegment& out) noexcept {
  if (now_ns < next_deadline_ns_) return false;
  uint64_t next = kNever;
  for (uint32_t i = 0; i < sets_ * kWays; ++i) {
    Entry& entry = entries_[i];
    if (!entry.used) continue;
    if (entry.retry_ns <= now_ns) {
      if (entry.done || entry.retries >= listener_.syn_ack_retries) {
        counters_.add(TcpCounter::syn_expired);
        release(entry);
        continue;
      }
      ++entry.retries;
      entry.retry_ns = now_ns + (kSynAckFirstRetryNs << entry.retries);
      fill_syn_ack(entry, now_ns, out);
      counters_.add(TcpCounter::syn_acks_repeated);
      return true;  // next_deadline_ns_ is still past: the scan goes on with the next call
    }
    next = std::min(next, entry.retry_ns);
  }
  next_deadline_ns_ = next;
  return false;
}

void TcpListener::keep_silent(uint16_t local_port, uint64_t more_ns) noexcept {
  for (uint32_t i = 0; half_open_ > 0 && i < sets_ * kWays; ++i)
    if (entries_[i].used && entries_[i].done && entries_[i].tuple.local_port == local_port)
      entries_[i].retry_ns += more_ns;
}

bool TcpListener::reset_one(uint16_t local_port, OutSegment& out) noexcept {
  if (half_open_ == 0) return false;
  Entry* const end = &entries_[0] + std::size_t{sets_} * kWays;
  Entry* const entry = std::find_if(
      &entries_[0], end, [=](const Entry& e) { return e.used && e.tuple.local_port == local_port; });
  if (entry == end) return false;
  out = OutSegment{};
  out.tuple = entry->tuple;
  out.link = entry->link;
  out.seq = entry->iss + 1;
  out.ack =
      entry->irs + 1;  // for a peer in SYN-SENT, which goes by the acknowledgment (RFC 9293 section 3.10.7.3)
  out.flags = tcp_flag::rst | tcp_flag::ack;
  release(*entry);
  counters_.add(TcpCounter::handshake_given_up);
  return true;
}

bool reset_for(const TcpSegment& segment, OutSegment& out) noexcept {
  if (segment.has(tcp_flag::rst)) return false;
  fill_rst(segment, out);
  return true;
}

}  // namespace migrx

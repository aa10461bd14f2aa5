// The passive side of the handshake: LISTEN and SYN-RECEIVED. Read config.h and connection.h with it.
//
//   SYN ──▶ [peer allowed? room?] ──▶ SYN table entry ──▶ SYN-ACK ─┐ again after 1, 2, 4.. s
//                                └─▶ table full: cookie SYN-ACK    │
//   ACK ──▶ entry, or cookie, matches ──▶ [first bytes?] ──▶ TcpHandshake ──▶ TcpConnection::open()
//                                              └─ not yet: the entry waits for them
//
// Each local port that somebody listens on is a tenant (dataplane/tenant.h): who may connect, and how many
// places there are. One table of half-open handshakes serves all tenants.
//
// Places for connections are few, because packet buffers are reserved for each. With first_bytes_min set, a
// connection takes its place when its first bytes come. A peer that connects and is silent, or whose first
// bytes are missing, costs an entry of the SYN table and keeps nobody out.
//
// SYN floods (RFC 4987): half-open connections live in a set-associative table of fixed size; when a set is
// full the answer is a SYN cookie, which needs no state. MSS travels in the cookie, window scale and SACK in
// the low bits of our timestamp when the peer uses timestamps, so that even a connection made under attack is
// a fast one.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/tcp/config.h"
#include "dataplane/tcp/counters.h"
#include "dataplane/tenant.h"
#include "dataplane/wire/segment.h"

namespace migrx {

// What is the same for every tenant.
struct ListenerConfig {
  // Key of ISNs, timestamp offsets and cookies: random, kept by the process for its life.
  std::array<uint8_t, 16> secret{};
  uint32_t syn_table_entries = 512;
  bool syn_cookies =
      true;  // false: the oldest entry of a full set is given up instead (RFC 4987 section 3.4)
  uint32_t syn_ack_retries = 5;
  // A connection is opened by the segment that begins its stream with at least that many bytes, and until
  // then is as good as half open. 0: by the last segment of the handshake. For protocols whose client speaks
  // first; not for tenants with TenantConfig::server_speaks_first.
  uint32_t first_bytes_min = 0;
};

// One per poll core; single-threaded. All memory is allocated in the constructor.
class TcpListener {
 public:
  enum class Action : uint8_t {
    none,    // nothing to send
    reply,   // send `reply`
    accept,  // `handshake` is complete: open a connection, then give it this same segment
  };
  struct Result {
    Action action = Action::none;
    TcpCounter fate = TcpCounter::handshake_ignored;  // already counted
  };

  TcpListener(const ListenerConfig& listener, const TcpConfig& tcp, TcpCounters& counters);
  ~TcpListener();

  // A segment of a tuple that no connection owns. tenant: who listens on its local port; null: nobody.
  // connections_free: how many more connections the tenant may open now. When there are none, SYNs are
  // refused with RST; with first_bytes_min it is the first bytes that are dropped, and the peer repeats them.
  Result on_segment(const TcpSegment& segment, const TenantConfig* tenant, uint32_t connections_free,
                    uint64_t now_ns, OutSegment& reply, TcpHandshake& handshake) noexcept;

  // Until then a handshake may live only in a cookie, of this poll core or another one, and a segment of an
  // unknown tuple may have overtaken the segment that opens the connection. Such a segment is dropped and the
  // peer repeats it; a RST would end an honest connection.
  [[nodiscard]] uint64_t cookies_in_flight_until_ns() const noexcept { return cookies_in_flight_until_ns_; }
  void set_cookies_in_flight_until_ns(uint64_t until_ns) noexcept {
    if (until_ns > cookies_in_flight_until_ns_) cookies_in_flight_until_ns_ = until_ns;
  }

  // Repeats a SYN-ACK that is due; call until false.
  [[nodiscard]] bool poll_output(uint64_t now_ns, OutSegment& out) noexcept;
  // Forgets one half-open handshake with that local port, with the RST that tells its peer, which may be
  // established as it sees it; false: there are none. For the end of a tenant.
  [[nodiscard]] bool reset_one(uint16_t local_port, OutSegment& out) noexcept;
  [[nodiscard]] uint64_t next_deadline_ns() const noexcept { return next_deadline_ns_; }
  [[nodiscard]] uint32_t half_open() const noexcept { return half_open_; }
  // When the SYN came of the peer of that local port that has been silent longest since its handshake;
  // kNever: none is. A peer that a cookie remembered is left out: nobody knows when its SYN came. Looks at
  // the whole table.
  [[nodiscard]] uint64_t silent_since_ns(uint16_t local_port) const noexcept;

  // Those who are silent on that port now may be so for `more_ns` more.
  void keep_silent(uint16_t local_port, uint64_t more_ns) noexcept;

  // RFC 6528: ISN = M + F(localip, localport, remoteip, remoteport, secretkey).
  [[nodiscard]] SeqNum initial_sequence(const FourTuple& tuple, uint64_t now_ns) const noexcept;

 private:
  struct Entry;
  [[nodiscard]] Entry* find(const FourTuple& tuple, uint64_t hash) noexcept;
  [[nodiscard]] Entry* place(uint64_t hash) noexcept;
  // Who listens on a segment's local port, and how many more connections may be opened for it.
  struct Host {
    const TenantConfig& tenant;
    uint32_t connections_free;
  };
  [[nodiscard]] uint32_t first_bytes_min(const Host& host) const noexcept {
    return host.tenant.server_speaks_first ? 0 : listener_.first_bytes_min;
  }
  [[nodiscard]] bool first_bytes_suffice(const TcpSegment& segment, SeqNum rcv_nxt,
                                         const Host& host) const noexcept;
  Result on_cookie(Entry& cookie, const TcpSegment& segment, const Host& host, uint64_t now_ns,
                   OutSegment& reply, TcpHandshake& handshake) noexcept;
  void await_first_bytes(Entry& entry, const TenantConfig& tenant, uint64_t now_ns) noexcept;
  [[nodiscard]] uint64_t keyed_hash(const FourTuple& tuple, uint32_t domain, uint32_t extra) const noexcept;
  [[nodiscard]] uint32_t ts_offset(const FourTuple& tuple) const noexcept;
  Result on_syn(const TcpSegment& segment, const Host& host, uint64_t now_ns, OutSegment& reply) noexcept;
  Result on_half_open(Entry& entry, const TcpSegment& segment, const Host& host, uint64_t now_ns,
                      OutSegment& reply, TcpHandshake& handshake) noexcept;
  void offer(const TcpSegment& segment, Entry& entry) const noexcept;
  void fill_ack(const Entry& entry, uint64_t now_ns, OutSegment& out) const noexcept;
  void fill_syn_ack(const Entry& entry, uint64_t now_ns, OutSegment& out) const noexcept;
  void make_cookie(const TcpSegment& segment, Entry& entry, uint64_t now_ns) const noexcept;
  [[nodiscard]] bool open_cookie(const TcpSegment& segment, uint64_t now_ns, Entry& entry) const noexcept;
  void fill_handshake(const Entry& entry, const TcpSegment& segment, uint64_t now_ns,
                      TcpHandshake& handshake) const noexcept;
  void release(Entry& entry) noexcept;
  Result count(Action action, TcpCounter fate) noexcept;

  const ListenerConfig listener_;
  const TcpConfig& tcp_;
  TcpCounters& counters_;
  const uint32_t sets_;
  const uint32_t initial_window_bytes_;
  const uint8_t receive_shift_;
  const std::unique_ptr<Entry[]> entries_;
  uint32_t half_open_ = 0;
  uint64_t next_deadline_ns_ = kNever;
  uint64_t cookies_in_flight_until_ns_ = 0;
  uint64_t cookies_until_ns_ = 0;  // cookies are only believed when some were given out lately
};

// The answer to a segment that belongs nowhere: RFC 9293 section 3.10.7.1. False: none is due (it was a RST).
// Also the whole of "reset mode", in which a restarted process tells the sources of its predecessor.
[[nodiscard]] bool reset_for(const TcpSegment& segment, OutSegment& out) noexcept;

}  // namespace migrx

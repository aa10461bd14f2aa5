// The settings of an endpoint, and what a finished handshake hands to its connection.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dataplane/wire/address.h"
#include "dataplane/wire/segment.h"

namespace migrx {

inline constexpr uint64_t kNever = UINT64_MAX;  // a deadline that does not exist
inline constexpr uint64_t kNsPerMs = 1'000'000;
inline constexpr uint64_t kNsPerSecond = 1'000'000'000;

// Shared by all connections of a poll core; must outlive them. Times in ns.
struct TcpConfig {
  // Announced to IPv4 peers: MTU - 40 (RFC 6691), and 20 less to those of IPv6, see mss_for(). Bounds what
  // the peer sends.
  uint16_t mss = 1460;
  // Upper bound of the receive window. The window in force is also bounded by free packet buffers.
  uint32_t window_bytes = 4U << 20;
  // Windows fit the path: twice what comes at this rate in the round trip that the handshake showed, and no
  // less than window_least_bytes. More would only stand in queues, the sender's socket buffer among them,
  // which have to drain while the guest stands still. 0: window_bytes whatever the path; so, too, when the
  // round trip is unknown.
  uint64_t path_bytes_per_s = 0;
  uint32_t window_least_bytes = 1U << 20;
  // Packet buffers (slices) that one connection may hold, in order or not; 0: as many as its Handoff has
  // slots.
  uint32_t buffer_quota = 0;
  // Room of one packet buffer. Segments larger than that come as a chain, and the window counts them so.
  uint32_t buffer_bytes = 2048;
  // Bytes that may be written into packet buffer `buffer` from `end` on, which lies inside it or at its end;
  // 0 when somebody else may see that buffer. Null: never. Small segments are put together there when buffers
  // run short.
  uint32_t (*room_behind)(const void* buffer, const std::byte* end) noexcept = nullptr;

  bool timestamps = true;      // RFC 7323
  bool window_scaling = true;  // RFC 7323
  bool sack = true;            // RFC 2018, with RFC 2883

  // RFC 9293 section 3.8.6.3 asks for less than 500 ms; Linux's smallest value is kind to senders with one
  // segment in flight.
  uint64_t delayed_ack_ns = 40 * kNsPerMs;
  // The first segments are acknowledged at once, so that a sender in slow start is not held up by the delay
  // (RFC 5681 section 4.2 leaves the choice).
  uint8_t quick_acks = 16;
  // A pushed segment ends a write of the peer, which may be waiting for its acknowledgment (Nagle).
  bool ack_on_push = true;
  // A quiet channel is normal for minutes, and so is a link that is away for some; see bound_silence().
  // 0: no keepalive (RFC 9293 section 3.8.4).
  uint64_t keepalive_idle_ns = 60 * kNsPerSecond;
  uint64_t keepalive_interval_ns = 15 * kNsPerSecond;

  // RFC 6298. Departure: the minimum is 200 ms, not 1 s, as in common kernels: the peer is one switch away.
  uint64_t rto_initial_ns = kNsPerSecond;
  uint64_t rto_min_ns = 200 * kNsPerMs;
  // Departure: RFC 6298 section 2.5 wants 60 s at least. What is sent is a verdict of eight bytes, for which
  // a guest stands still: after an outage it must not wait for a timer that has backed off for minutes, and a
  // segment every few seconds is no load for any link.
  uint64_t rto_max_ns = 2500 * kNsPerMs;
  // R2 of RFC 9293 section 3.8.3, at least 100 s for data, and the same for a peer that is silent: a little
  // more than Linux at the other end bears (tcp_retries2 of 15: 924.6 s), so that no outage is given up here
  // that the source would survive. kNever: for ever.
  uint64_t give_up_ns = 960 * kNsPerSecond;
  // Departure: RFC 9293 wants 2 MSL = 4 min. A receiver seldom closes first, and its sources are near.
  uint64_t time_wait_ns = 60 * kNsPerSecond;
  // FIN-WAIT-2 without a reader on our side.
  uint64_t fin_wait_2_ns = 60 * kNsPerSecond;

  // RFC 5961 section 7. Per connection, not per system: a shared budget can be read by strangers
  // (CVE-2016-5696).
  uint32_t challenge_acks_per_second = 10;
};

// Silence of a peer is borne for `give_up_ns`, 0 for ever: so long may bytes go unacknowledged, or keepalive
// probes unanswered since the last segment. The first probe follows after 60 s, more every 15 s; sooner where
// that would be late.
constexpr void bound_silence(TcpConfig& config, uint64_t give_up_ns) noexcept {
  config.give_up_ns = give_up_ns == 0 ? kNever : give_up_ns;
  config.keepalive_idle_ns = std::max<uint64_t>(std::min(60 * kNsPerSecond, config.give_up_ns / 4), kNsPerMs);
  config.keepalive_interval_ns =
      std::max<uint64_t>(std::min(15 * kNsPerSecond, config.give_up_ns / 16), kNsPerMs);
}

// What is announced to the peer of `tuple`: IPv6's header is 20 bytes longer (RFC 9293 section 3.7.1).
[[nodiscard]] constexpr uint16_t mss_for(const TcpConfig& config, const FourTuple& tuple) noexcept {
  constexpr uint16_t kLonger = kIpv6HeaderBytes - kIpv4HeaderBytes;
  return tuple.is_ipv4() ? config.mss : static_cast<uint16_t>(config.mss - std::min(config.mss, kLonger));
}

// Packet buffers that a segment with `payload` bytes occupies, headers included.
[[nodiscard]] constexpr uint32_t buffers_per_segment(const TcpConfig& config, uint32_t payload) noexcept {
  return (payload + kHeaderBytesMax + config.buffer_bytes - 1) / config.buffer_bytes;
}
// Of a connection's `quota` buffers, those that the window does not count: the last segment of a write is
// seldom a full one, and it takes a buffer all the same. One in sixteen, since bulk senders write 32 KiB and
// more at a time; where more are needed, small segments are put together.
[[nodiscard]] constexpr uint32_t buffers_spare(uint32_t quota) noexcept {
  return std::max(quota / 16, 1U);
}
// Bytes that surely fit into a quota of `buffers` buffers if they come in segments of `segment_bytes`.
[[nodiscard]] constexpr uint32_t window_for(const TcpConfig& config, uint32_t buffers,
                                            uint32_t segment_bytes) noexcept {
  const uint32_t counted = buffers - std::min(buffers, buffers_spare(buffers));
  const uint64_t bytes = uint64_t{counted / buffers_per_segment(config, segment_bytes)} * segment_bytes;
  return static_cast<uint32_t>(std::min<uint64_t>(bytes, config.window_bytes));
}
// The least quota whose window is `window_bytes`, or a segment more.
[[nodiscard]] constexpr uint64_t quota_for_window(const TcpConfig& config, uint64_t window_bytes) noexcept {
  const uint64_t counted = (window_bytes / config.mss + 1) * buffers_per_segment(config, config.mss);
  return counted + std::max<uint64_t>((counted + 14) / 15, 1);
}
// The largest window for a path with that round trip in ns; 0: unknown.
[[nodiscard]] constexpr uint32_t window_for_path(const TcpConfig& config, uint64_t rtt_ns) noexcept {
  if (config.path_bytes_per_s == 0 || rtt_ns == 0 || rtt_ns > kNsPerSecond) return config.window_bytes;
  const uint64_t bytes = 2 * (config.path_bytes_per_s / 1'000'000) * (rtt_ns / 1000 + 1);
  return static_cast<uint32_t>(
      std::min<uint64_t>(std::max<uint64_t>(bytes, config.window_least_bytes), config.window_bytes));
}
// The smallest quota with which a connection makes progress at any time: two full segments, so that a sender
// in delayed-ACK lockstep is not throttled to one segment per 40 ms, and a spare buffer.
[[nodiscard]] constexpr uint32_t buffer_quota_min(const TcpConfig& config) noexcept {
  return 2 * buffers_per_segment(config, config.mss) + 1;
}
// The shift that lets window_bytes be announced: RFC 7323 section 2.3, at most 14.
[[nodiscard]] constexpr uint8_t window_scale_for(uint32_t window_bytes) noexcept {
  uint8_t shift = 0;
  while (shift < 14 && (window_bytes >> shift) > 65535) ++shift;
  return shift;
}

// The state of a connection at the moment it becomes ESTABLISHED.
struct TcpHandshake {
  FourTuple tuple;
  FrameAddress link;
  SeqNum irs;
  SeqNum iss;
  uint16_t send_mss =
      536;  // the largest payload the peer takes (RFC 9293 section 3.7.1), options not subtracted
  uint8_t send_shift = 0;     // applied to windows we receive
  uint8_t receive_shift = 0;  // applied to windows we announce
  bool timestamps = false;
  bool sack = false;
  uint32_t ts_recent = 0;
  uint32_t ts_offset = 0;       // added to the millisecond clock to make our TSval
  uint32_t send_window = 0;     // bytes, scaled already
  uint32_t receive_window = 0;  // bytes, as announced with SYN-ACK
  uint64_t rtt_ns = 0;          // SYN-ACK to ACK; 0: unknown, it was sent more than once
  uint64_t syn_ns = 0;          // when the SYN came; 0: unknown, a cookie stood for it
};

// The clock of our timestamps: 1 ms (RFC 7323 section 5.4), offset by a keyed hash of the tuple.
[[nodiscard]] constexpr uint32_t timestamp_at(uint64_t now_ns, uint32_t ts_offset) noexcept {
  return static_cast<uint32_t>(now_ns / kNsPerMs) + ts_offset;
}

}  // namespace migrx

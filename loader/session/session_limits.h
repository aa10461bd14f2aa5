// The time limits of a session. docs/limits.md has the option and the test of each.
#pragma once

#include <cstdint>

namespace migrx {

// The silence that a peer is allowed while channels are missing: main of a source since 9.0 says nothing
// before they are connected. In nanoseconds, as both limits, of which 0 means for ever; UINT64_MAX: for ever.
[[nodiscard]] constexpr uint64_t patience_ns(uint64_t identify_ns, uint64_t channels_ns) noexcept {
  return identify_ns == 0 || channels_ns == 0 ? UINT64_MAX : identify_ns + channels_ns;
}

// The first four: 0 means for ever.
struct SessionLimits {
  // A connection that has not said what it is; while channels are missing that much beyond channels_ns.
  uint64_t identify_ns = 30'000'000'000;
  // Between the first channel and the last. The last SYN of a Linux source that is lost all the time leaves
  // 63 s after its first (tcp_syn_retries 6).
  uint64_t channels_ns = 75'000'000'000;
  // Channels wait for each other and no byte comes, or the destination takes none of those that wait for it.
  // Of this and the next: while the source is out of reach no time passes (stall_clock.h).
  uint64_t stall_ns = 60'000'000'000;
  // RAM is here; no byte comes from the source, and the destination neither takes one nor says that it has
  // the guest.
  uint64_t destination_ns = 300'000'000'000;
  // For the source to acknowledge SHUT 1 before everything is reset. It answers within a round trip
  // when it lives.
  uint64_t abort_ns = 200'000'000;
  // A source whose main channel has been reset closes its multifd channels itself; those that are open after
  // this time are reset (channel.h says why not at once).
  uint64_t multifd_reset_ns = 1'000'000'000;
  // A multifd channel that was refused is reset after the first of these times when it has sent more than its
  // greeting, and after the second when it has not. Most sources close it before: their main was refused
  // too, some of them after Admission::kSuspicionNs. While main waits, one that may be the source's own, sent
  // through a NAT, is held as long as main.
  uint64_t refused_ns = 4'000'000'000;
  uint64_t refused_silent_ns = 30'000'000'000;
  // For the source to close when its TCP has acknowledged SHUT 0. It closes as soon as it has read it. How
  // long an acknowledgment is waited for is TCP's (TcpConfig::give_up_ns).
  uint64_t farewell_ns = 10'000'000'000;
};

}  // namespace migrx

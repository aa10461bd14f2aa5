// The watchdogs end a session that would otherwise wait for ever. Pure functions of facts: SessionControl
// gathers the facts in each turn, these judge them, and tests need no session.
#pragma once

#include <cstdint>
#include <string>

#include "dataplane/handoff/handoff.h"
#include "loader/session/session_limits.h"
#include "loader/stream/error.h"

namespace migrx {

// ---- Channels that do not come

struct ArrivalFacts {
  uint32_t here = 0;       // channels that have said what they are, main included
  uint32_t expected = 0;   // all channels, main included
  uint64_t waited_ns = 0;  // since the first of them
  // The main channel is the only one, and so many bytes of it have come, unread.
  uint64_t main_alone_bytes = 0;
  // Somebody has spoken and was not read yet: perhaps who is missing.
  bool unheard = false;
};
// An error: the others have had their time.
[[nodiscard]] StreamError judge_arrival(const ArrivalFacts& facts, const SessionLimits& limits);

// ---- A multifd channel that ends

struct EndFacts {
  bool begun = false;        // the first barrier has been met
  bool ends_parked = false;  // the channel waits at a barrier, and the end of its stream is all that is left
  bool let_go = false;       // its worker is through with it
  StreamEnd end = StreamEnd::none;
  bool awaited = false;  // main stands at a barrier and waits for this channel
  bool ram_complete = false;
  bool return_path = false;  // it is open
};
enum class EndVerdict : uint8_t {
  fine,         // it may be open, or a source that is through has closed it in good order
  before_main,  // closed after its first SYNC, before main had begun
  too_early,    // something of it is missing
};
[[nodiscard]] EndVerdict judge_end(const EndFacts& facts) noexcept;

// ---- Silence

struct SilenceFacts {
  // No byte came, and none left for the destination; the time in which we held the source up does not count.
  uint64_t quiet_ns = 0;
  bool device_state = false;   // RAM is complete
  bool colo = false;           // with x-colo: silence between checkpoints is ordinary
  bool channels_wait = false;  // some channel stands at a barrier
  bool main_parked = false;    // main could not go on in its last turn
  // Main has come, and no section of RAM has begun after the list of blocks.
  bool before_ram = false;
  // In the first pass, a multifd channel from the source's address and with its uuid was refused as one too
  // many: perhaps the source's own.
  bool one_too_many = false;
  // A multifd channel was closed in good order, as a source does that is through.
  bool channel_closed = false;
  // On a channel that does not stand at a barrier its TCP has shown bytes that have not come: it has them to
  // send again.
  bool under_way = false;
  // For how long the source has waited neither for us nor for its own TCP: all that came has been read,
  // nothing is under way, and each of its connections has said so since. 0: not known.
  uint64_t idle_ns = 0;
};
enum class SilenceVerdict : uint8_t {
  fine,                   // a quiet source is no fault: a switchover may idle for minutes
  no_verdict,             // the destination does not say that it has the guest
  setup,                  // the source hangs before its first page (QEMU 11 when cancelled then)
  barrier,                // channels wait for others from which nothing comes
  channel_refused,        // the source hangs since a channel of its own was refused (QEMU 7.2 does)
  channel_closed,         // the source closed a channel, is not through and says nothing more
  destination_takes_none  // bytes wait for the destination, and it takes none
};
[[nodiscard]] SilenceVerdict judge_silence(const SilenceFacts& facts, const SessionLimits& limits) noexcept;
// `standing`: where each channel is (Session::standing()). None for `fine`.
[[nodiscard]] StreamError error_of(SilenceVerdict verdict, const SessionLimits& limits,
                                   const std::string& standing);

}  // namespace migrx

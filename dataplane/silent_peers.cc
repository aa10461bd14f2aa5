#include "dataplane/silent_peers.h"

#include <algorithm>

#include "dataplane/poll_core.h"

namespace migrx {

void SilentPeersOfPollCores::ask() noexcept {
  for (PollCore* const core : cores_) core->ask_for_silent_peers();
}

std::optional<uint64_t> SilentPeersOfPollCores::oldest_ns() const noexcept {
  uint64_t oldest_ns = kNever;
  for (const PollCore* const core : cores_) {
    const std::optional<uint64_t> answer = core->silent_since_ns();
    if (!answer) return std::nullopt;
    oldest_ns = std::min(oldest_ns, *answer);
  }
  return oldest_ns;
}

}  // namespace migrx

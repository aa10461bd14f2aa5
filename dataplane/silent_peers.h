// Asks all poll cores of a process for silent peers (dataplane/handoff/silent_peers.h).
#pragma once

#include <optional>
#include <vector>

#include "dataplane/handoff/silent_peers.h"

namespace migrx {

class PollCore;

class SilentPeersOfPollCores final : public SilentPeers {
 public:
  // They must outlive this object.
  void add(PollCore& core) { cores_.push_back(&core); }
  void ask() noexcept override;
  [[nodiscard]] std::optional<uint64_t> oldest_ns() const noexcept override;

 private:
  std::vector<PollCore*> cores_;
};

}  // namespace migrx

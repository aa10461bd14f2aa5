// Peers that have connected and are silent: their handshake is done, and their first bytes have not come or
// were lost. The loader does not know these peers, since a connection begins for it with its first bytes
// (dataplane/tcp/listener.h). So the control thread asks the poll cores.
#pragma once

#include <cstdint>
#include <optional>

namespace migrx {

// Control thread.
class SilentPeers {
 public:
  virtual ~SilentPeers() = default;
  virtual void ask() noexcept = 0;
  // When the SYN came of the peer that has been silent longest, on the poll cores' clock; UINT64_MAX: there
  // is none. Nothing: a poll core has not answered the last ask() yet. After an answer take_accepted() has
  // every connection that left the silent ones before.
  [[nodiscard]] virtual std::optional<uint64_t> oldest_ns() const noexcept = 0;
};

}  // namespace migrx

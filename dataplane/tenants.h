// The control thread's side of the listeners of all poll cores: opens and closes tenants, and asks for the
// silent peers of one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "dataplane/handoff/silent_peers.h"
#include "dataplane/tenant.h"

namespace migrx {

class PollCore;

// Control thread.
class Tenants {
 public:
  // Tenants that may be there at a time, those included whose last connections have not ended.
  static constexpr uint32_t kMax = 1024;

  // The core outlives this object. Before the first open().
  void add(PollCore& core) { cores_.push_back(&core); }

  // Each poll core listens from its next turn on. Null: kMax are there, or one listens on that port.
  [[nodiscard]] Tenant* open(const TenantConfig& config);
  // Nobody connects any more, and whoever is about to is reset; connections live on. The tenant may be
  // destroyed by any later open() or collect().
  void close(Tenant& tenant);
  // From now on peers that have connected to it may be silent for as long as it is there.
  void keep_silent(Tenant& tenant);
  void close_all();
  // Destroys closed tenants whose last connections have ended.
  void collect();

  // One that is open and listens on that port; null: none.
  [[nodiscard]] Tenant* listening_on(uint16_t port) const noexcept;
  // Places that are promised on each poll core: all of an open tenant's, and those that a closed one's
  // connections still have.
  [[nodiscard]] uint64_t places_promised() const noexcept;
  [[nodiscard]] uint32_t size() const noexcept { return static_cast<uint32_t>(tenants_.size()); }

  // Peers that have connected to `tenant` and are silent. The tenant outlives it, and so does this object.
  [[nodiscard]] std::unique_ptr<SilentPeers> silent_peers(Tenant& tenant);

 private:
  class SilentPeersOf;
  struct Held {
    std::unique_ptr<Tenant> tenant;
    bool open = true;
  };
  std::vector<PollCore*> cores_;
  std::vector<Held> tenants_;
  uint32_t next_id_ = 1;
};

}  // namespace migrx

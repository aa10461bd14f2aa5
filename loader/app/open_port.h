// A TCP port that one migration listens on, from its construction to its end.
#pragma once

#include <memory>

#include "dataplane/handoff/silent_peers.h"
#include "dataplane/tenant.h"
#include "loader/app/arrivals.h"

namespace migrx {

class Network;

// Control thread.
class OpenPort {
 public:
  // Throws SetupError: the port is another migration's, or there are too many.
  OpenPort(Network& network, Arrivals& arrivals, const TenantConfig& config);
  // Whoever is about to connect is reset; connections that were taken live on.
  ~OpenPort();
  OpenPort(const OpenPort&) = delete;
  OpenPort& operator=(const OpenPort&) = delete;

  // The next new connection; nullptr: there is none.
  [[nodiscard]] Handoff* take() { return arrivals_.take(*tenant_); }
  // The source's preempt channel may be silent to the end of postcopy.
  void keep_silent();
  [[nodiscard]] SilentPeers& silent_peers() noexcept { return *silent_peers_; }
  [[nodiscard]] const Tenant& tenant() const noexcept { return *tenant_; }

 private:
  Network& network_;
  Arrivals& arrivals_;
  Tenant* const tenant_;
  std::unique_ptr<SilentPeers> silent_peers_;
};

}  // namespace migrx

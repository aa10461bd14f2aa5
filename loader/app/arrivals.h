// New connections on their way from the poll cores to the migrations that they belong to.
#pragma once

#include <cstdint>
#include <deque>
#include <map>

#include "dataplane/tenant.h"

namespace migrx {

class Handoff;
class LiveConnections;
class Network;

// Control thread.
class Arrivals {
 public:
  Arrivals(Network& network, LiveConnections& live) : network_(network), live_(live) {}

  // Connections to this tenant are kept for it from here on, until forget(). Those of tenants that nobody
  // expects are reset.
  void expect(const Tenant& tenant) { waiting_[tenant.id()]; }
  void forget(const Tenant& tenant);
  // The next new connection of the tenant, which the parent knows of now; nullptr: there is none.
  [[nodiscard]] Handoff* take(const Tenant& tenant);

 private:
  void collect();
  void refuse(Handoff& connection);

  Network& network_;
  LiveConnections& live_;
  std::map<uint32_t, std::deque<Handoff*>> waiting_;  // by tenant
};

}  // namespace migrx

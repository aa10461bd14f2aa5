#include "loader/app/arrivals.h"

#include "dataplane/handoff/handoff.h"
#include "loader/app/live_connections.h"
#include "loader/app/network.h"

namespace migrx {

void Arrivals::collect() {
  while (Handoff* const connection = network_.take_accepted()) {
    const auto expected = waiting_.find(connection->tenant);
    if (expected == waiting_.end()) {
      refuse(*connection);
      continue;
    }
    live_.opened(network_.place(*connection), network_.whereabouts(*connection));
    expected->second.push_back(connection);
  }
}

// It came while its migration ended.
void Arrivals::refuse(Handoff& connection) {
  (void)connection.abort();
  connection.detach();
  connection.retire();
}

Handoff* Arrivals::take(const Tenant& tenant) {
  collect();
  const auto expected = waiting_.find(tenant.id());
  if (expected == waiting_.end() || expected->second.empty()) return nullptr;
  Handoff* const connection = expected->second.front();
  expected->second.pop_front();
  return connection;
}

void Arrivals::forget(const Tenant& tenant) {
  collect();
  const auto expected = waiting_.find(tenant.id());
  if (expected == waiting_.end()) return;
  for (Handoff* const connection : expected->second) {
    const uint32_t place = network_.place(*connection);
    refuse(*connection);
    live_.ended(place);
  }
  waiting_.erase(expected);
}

}  // namespace migrx

#include "loader/app/live_connections.h"

#include "loader/app/lost_connection.h"

namespace migrx {

void LiveConnections::opened(uint32_t place, const LostConnection& connection) {
  connections_[place] = connection;
  lifeline_.connected(place, to_text(connection));
}

void LiveConnections::ended(uint32_t place) {
  if (connections_.erase(place) > 0) lifeline_.ended(place);
}

void LiveConnections::lose(uint32_t place, List& lost) {
  const auto found = connections_.find(place);
  if (found == connections_.end()) return;
  const LostConnection connection = found->second;
  const uint32_t anew = next_++;
  opened(anew, connection);  // first: the parent knows of it all the while
  ended(place);
  lost.places.push_back(anew);
  lost.connections.push_back(connection);
}

void LiveConnections::inherit(const std::vector<LostConnection>& lost) {
  for (const LostConnection& connection : lost) opened(next_++, connection);
  // Their peers must be told even if this process ends before it has listened.
  if (!lost.empty()) lifeline_.listening();
}

LiveConnections::List LiveConnections::from(uint32_t first) const {
  List list;
  for (auto it = connections_.lower_bound(first); it != connections_.end(); ++it) {
    list.places.push_back(it->first);
    list.connections.push_back(it->second);
  }
  return list;
}

}  // namespace migrx

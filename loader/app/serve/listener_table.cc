#include "loader/app/serve/listener_table.h"

#include <algorithm>

#include "loader/destination/port_range.h"

namespace migrx {

ListenerTable::ListenerTable(PortRange range)
    : range_(range), closed_until_ns_(range.last - range.first + std::size_t{1}) {}

ListenerTable::News ListenerTable::take(const std::vector<PortListener>& listeners,
                                        const std::vector<uint16_t>& asked, uint64_t now_ns) {
  const auto has = [](const std::vector<PortListener>& list, uint64_t inode) {
    return std::any_of(list.begin(), list.end(),
                       [inode](const PortListener& listener) { return listener.inode == inode; });
  };
  News news;
  for (const PortListener& listener : listeners)
    if (listener.port >= range_.first && listener.port <= range_.last && !has(known_, listener.inode))
      news.appeared.push_back(listener);
  for (const PortListener& listener : known_)
    if (!has(listeners, listener.inode)) {
      news.gone.push_back(listener.inode);
      refused_.erase(listener.inode);  // the kernel gives the number to another socket some day
    }
  std::erase_if(known_, [&](const PortListener& listener) { return !has(listeners, listener.inode); });
  known_.insert(known_.end(), news.appeared.begin(), news.appeared.end());
  for (const uint16_t port : asked)
    if (port >= range_.first && port <= range_.last && !destination_on(port))
      closed_until_ns_[port - range_.first] = now_ns + kClosedNs;
  return news;
}

void ListenerTable::refuse(uint64_t inode) {
  const auto refused = std::find_if(known_.begin(), known_.end(),
                                    [inode](const PortListener& one) { return one.inode == inode; });
  if (refused == known_.end()) return;
  for (const PortListener& one : known_)
    if (one.port == refused->port) refused_.insert(one.inode);
}

bool ListenerTable::destination_on(uint16_t port) const noexcept {
  return std::any_of(known_.begin(), known_.end(), [&](const PortListener& listener) {
    return listener.port == port && !refused_.contains(listener.inode);
  });
}

bool ListenerTable::awaited(uint16_t port, uint64_t now_ns) const noexcept {
  if (port < range_.first || port > range_.last) return false;
  return destination_on(port) || now_ns >= closed_until_ns_[port - range_.first];
}

}  // namespace migrx

#include "dataplane/connection_pool.h"

#include <cstdio>

#include "dataplane/wire/address_text.h"

namespace migrx {

ConnectionPool::ConnectionPool(uint32_t connections_max, uint32_t handoff_slots, const TcpConfig& config,
                               TcpCounters& counters, uint64_t seed)
    : flows_(connections_max, seed), order_(connections_max), touched_(connections_max) {
  slots_.reserve(connections_max);
  for (uint32_t i = 0; i < connections_max; ++i) {
    slots_.push_back(std::make_unique<Slot>(handoff_slots, config, counters));
    slots_[i]->position = order_[i] = i;
  }
}

uint32_t ConnectionPool::open(const TcpHandshake& handshake, uint32_t port, const IpAddress& next_hop,
                              uint64_t now_ns) noexcept {
  if (used_ == size() || flows_.find(handshake.tuple) != kNone) return kNone;
  const uint32_t index = order_[used_++];
  Slot& slot = *slots_[index];
  slot.port = port;
  slot.open = true;
  slot.tcp.open(handshake, now_ns);
  static_cast<void>(flows_.insert(handshake.tuple, index));
  const IpAddress& ip = handshake.tuple.remote_ip;
  const IpAddressText text(ip);
  std::snprintf(slot.handoff.peer.data(), slot.handoff.peer.size(), ip.is_ipv4() ? "%s:%u" : "[%s]:%u",
                text.c_str(), handshake.tuple.remote_port);
  slot.handoff.peer_address = ip;
  slot.handoff.connection = index;
  slot.whereabouts = {handshake.tuple, handshake.link, next_hop};
  open_count_.add();
  used_count_.set(used_);
  return index;
}

uint32_t ConnectionPool::move(uint32_t port, const IpAddress& ip, const EthernetAddress& mac) noexcept {
  uint32_t moved = 0;
  for (uint32_t i = 0; i < used_; ++i) {
    Slot& slot = *slots_[order_[i]];
    if (!slot.open || slot.port != port || slot.whereabouts.next_hop != ip) continue;
    if (slot.tcp.move_link(mac)) ++moved;
  }
  return moved;
}

void ConnectionPool::close(uint32_t index) noexcept {
  Slot& slot = *slots_[index];
  slot.open = false;
  static_cast<void>(flows_.erase(slot.tcp.tuple()));
  if (last_index_ == index) last_index_ = kNone;
  open_count_.set(open_count_.read() - 1);
}

bool ConnectionPool::recycle(uint32_t index) noexcept {
  Slot& slot = *slots_[index];
  if (slot.open || slot.touched || !slot.tcp.recyclable() || !slot.handoff.reusable()) return false;
  slot.handoff.reset();
  // The last used one takes its place.
  --used_;
  const uint32_t moved = order_[used_];
  order_[slot.position] = moved;
  slots_[moved]->position = slot.position;
  order_[used_] = index;
  slot.position = used_;
  used_count_.set(used_);
  return true;
}

}  // namespace migrx

// The connections of one poll core: each a Handoff with the TCP that fills it, made once and used again; the
// table that finds them by their 4-tuple; and the order in which the core looks at them.
//
//   free ──open()──▶ open ──close()──▶ closed, still read ──recycle()──▶ free
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/flow_table.h"
#include "dataplane/handoff/handoff.h"
#include "dataplane/reset_mode.h"
#include "dataplane/tcp/config.h"
#include "dataplane/tcp/connection.h"
#include "dataplane/tcp/counters.h"

namespace migrx {

class Tenant;

// A connection is known by its index, from open() until it is recycled. Owned and called by one poll core,
// except where said. All memory is allocated in the constructor.
class ConnectionPool {
 public:
  static constexpr uint32_t kNone = FlowTable::kNone;
  struct Slot {
    Slot(uint32_t handoff_slots, const TcpConfig& config, TcpCounters& counters)
        : handoff(handoff_slots + 1), tcp(config, handoff, counters) {}
    Handoff handoff;
    TcpConnection tcp;
    uint32_t position = 0;       // in order_
    uint32_t port = 0;           // index of the port it lives on
    Tenant* tenant = nullptr;    // whose place it has; the poll core's business
    bool open = false;           // in the flow table
    bool touched = false;        // in touched_
    LostConnection whereabouts;  // written before the connection is announced
  };

  // config and counters outlive the pool. seed: of the flow table.
  ConnectionPool(uint32_t connections_max, uint32_t handoff_slots, const TcpConfig& config,
                 TcpCounters& counters, uint64_t seed);

  [[nodiscard]] Slot& operator[](uint32_t index) noexcept { return *slots_[index]; }
  [[nodiscard]] const Slot& operator[](uint32_t index) const noexcept { return *slots_[index]; }
  [[nodiscard]] uint32_t size() const noexcept { return static_cast<uint32_t>(slots_.size()); }
  // Those in use, open or not: at [0, used()) of the order. recycle() puts the last one, and no other, into
  // the place of the one it frees.
  [[nodiscard]] uint32_t used() const noexcept { return used_; }
  [[nodiscard]] uint32_t at(uint32_t position) const noexcept { return order_[position]; }
  [[nodiscard]] uint32_t free() const noexcept { return size() - used_; }

  // The open connection of that tuple, or kNone. Bursts are mostly of one flow: the last one found is
  // remembered.
  [[nodiscard]] uint32_t find(const FourTuple& tuple) noexcept {
    if (last_index_ != kNone && tuple == last_tuple_) [[likely]]
      return last_index_;
    const uint32_t index = flows_.find(tuple);
    if (index != kNone) {
      last_index_ = index;
      last_tuple_ = tuple;
    }
    return index;
  }
  // Opens one and names its peer in its Handoff; kNone: none is free, or the tuple has one.
  [[nodiscard]] uint32_t open(const TcpHandshake& handshake, uint32_t port, const IpAddress& next_hop,
                              uint64_t now_ns) noexcept;
  // `ip`, which is reached by `port`, has that MAC address now: connections that are reached by it go there.
  // Returns how many went elsewhere until now.
  uint32_t move(uint32_t port, const IpAddress& ip, const EthernetAddress& mac) noexcept;
  // Takes it out of the flow table. Precondition: it is open.
  void close(uint32_t index) noexcept;
  // Frees it once it is closed and nobody looks at it any more; false: not yet, nothing happens.
  bool recycle(uint32_t index) noexcept;

  // To be served in this turn; twice is once.
  void touch(uint32_t index) noexcept {
    Slot& slot = *slots_[index];
    if (slot.touched) return;
    slot.touched = true;
    slot.handoff.prefetch_progress();
    touched_[touched_count_++] = index;
  }
  // The next one of those touched, which is not touched any more; kNone: there are none.
  [[nodiscard]] uint32_t take_touched() noexcept {
    if (touched_next_ == touched_count_) {
      touched_next_ = touched_count_ = 0;
      return kNone;
    }
    const uint32_t index = touched_[touched_next_++];
    slots_[index]->touched = false;
    return index;
  }
  // The next one in use, round and round. Precondition: used() > 0.
  [[nodiscard]] uint32_t next_visited() noexcept {
    if (next_visit_ >= used_) next_visit_ = 0;
    return order_[next_visit_++];
  }
  // Fetches where the workers of the next `count` stand.
  void prefetch_visited(uint32_t count) const noexcept {
    for (uint32_t i = 0; i < (count < used_ ? count : used_); ++i)
      slots_[order_[(next_visit_ + i) % used_]]->handoff.prefetch_progress();
  }

  // Any thread.
  [[nodiscard]] uint32_t open_count() const noexcept { return static_cast<uint32_t>(open_count_.read()); }
  [[nodiscard]] uint32_t used_count() const noexcept { return static_cast<uint32_t>(used_count_.read()); }

 private:
  FlowTable flows_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<uint32_t> order_;  // [0, used_): in use; slots_[i]->position: where slot i stands in it
  uint32_t used_ = 0;
  uint32_t next_visit_ = 0;
  std::vector<uint32_t> touched_;  // each at most once
  uint32_t touched_count_ = 0;
  uint32_t touched_next_ = 0;
  FourTuple last_tuple_;
  uint32_t last_index_ = kNone;
  Counter open_count_;
  Counter used_count_;
};

}  // namespace migrx

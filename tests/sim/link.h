// One direction of a network path: it delays, loses, repeats, reorders, damages and now and then stops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <queue>
#include <vector>

#include "tests/sim/random.h"

namespace migrx::sim {

using Packet = std::vector<std::byte>;

struct LinkOptions {
  uint64_t delay_ns = 10'000;
  uint64_t jitter_ns = 0;  // added to the delay, evenly distributed; order is kept unless `reorder` says no
  uint64_t bits_per_us = 10'000;      // 10 Gbit/s
  uint64_t queue_ns_max = 2'000'000;  // frames that would wait longer at the bottleneck are lost
  double loss = 0;
  double duplicate = 0;
  double reorder = 0;  // held back by up to reorder_ns
  uint64_t reorder_ns = 200'000;
  double corrupt = 0;
  double truncate = 0;
  double clog = 0;  // chance per frame that the link stops for clog_ns
  uint64_t clog_ns = 0;
  std::size_t mtu = 0;  // larger frames are lost (a path whose MTU shrank); 0: any
};

class Link {
 public:
  Link(const LinkOptions& options, Random random) : options_(options), random_(random) {}

  void send(Packet packet, uint64_t now_ns);
  // The next packet that has arrived by now_ns.
  bool receive(uint64_t now_ns, Packet& out, bool& damaged);
  // When the next one arrives; UINT64_MAX: nothing is under way.
  [[nodiscard]] uint64_t next_ns() const { return queue_.empty() ? UINT64_MAX : queue_.top().at_ns; }
  [[nodiscard]] LinkOptions& options() { return options_; }
  // Away: whatever is sent is lost, and so is what is under way.
  void set_away(bool away) {
    away_ = away;
    lost += away ? queue_.size() : 0;
    if (away) queue_ = {};
  }
  // Not every frame came as it was sent, once and in order.
  [[nodiscard]] bool disturbed() const { return lost + duplicated + corrupted + reordered > 0; }
  [[nodiscard]] bool idle() const { return queue_.empty(); }

  uint64_t sent = 0;
  uint64_t lost = 0;
  uint64_t duplicated = 0;
  uint64_t reordered = 0;
  uint64_t corrupted = 0;

 private:
  struct Flight {
    uint64_t at_ns;
    uint64_t number;
    Packet packet;
    bool damaged;
    friend bool operator<(const Flight& a, const Flight& b) {  // top() is the earliest
      return a.at_ns != b.at_ns ? a.at_ns > b.at_ns : a.number > b.number;
    }
  };
  void damage(Packet& packet);

  LinkOptions options_;
  bool away_ = false;
  Random random_;
  std::priority_queue<Flight> queue_;
  uint64_t number_ = 0;
  uint64_t free_ns_ = 0;      // when the wire has taken everything sent so far
  uint64_t in_order_ns_ = 0;  // arrival of the last packet that was not held back
};

}  // namespace migrx::sim

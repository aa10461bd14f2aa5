// Finds out what is wrong with the network path when frames come and the migration does not get on. Each
// finding is told once and names the command to try. Pure: the caller reads the counters.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace migrx {

// Of all poll cores, since the start.
struct TrafficFacts {
  double now_s = 0;
  uint64_t segments = 0;               // TCP segments with sound checksums
  uint64_t wrong_checksums = 0;        // IPv4 and TCP, dropped
  uint64_t stacked_vlans = 0;          // frames with two VLAN tags, dropped
  uint64_t in_order = 0;               // segments that brought the stream on
  uint64_t acks_from_behind_hole = 0;  // the peer has sent bytes that have not come
  uint32_t connections = 0;
};

// Control thread.
class TrafficWatch {
 public:
  // Packets of one kind that were dropped in a row, without a sound segment, before anything is said: a cable
  // damages some, and a trunk brings frames of others.
  static constexpr uint64_t kDropped = 5;
  // The path is at fault when for so long nothing brought the stream on, while the peer, asked every four
  // seconds (StallClock), answered so often with a sequence number beyond the hole. After an outage nothing
  // is said for the outage's own length: a sender's next retransmission may take that long (RFC 6298 section
  // 5.5), whatever its other connections bring meanwhile.
  static constexpr double kHole_s = 12;
  static constexpr uint64_t kAnswers = 3;
  static constexpr double kOutage_s = 10;

  // mtu: of the ports, bytes of an IPv4 packet. address: one of the ports' own, for the command to try.
  TrafficWatch(uint32_t mtu, std::string address) : mtu_(mtu), address_(std::move(address)) {}

  // The line to tell; empty: nothing new.
  [[nodiscard]] std::string look(const TrafficFacts& facts);

 private:
  const uint32_t mtu_;
  const std::string address_;
  TrafficFacts sound_;     // when the last sound segment came
  TrafficFacts progress_;  // when the stream got on last
  double back_s_ = 0;      // when the last outage ended
  double outage_s_ = 0;    // how long it was
  bool checksums_told_ = false;
  bool stacked_told_ = false;
  bool hole_told_ = false;
};

}  // namespace migrx

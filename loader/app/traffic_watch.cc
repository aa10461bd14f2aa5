#include "loader/app/traffic_watch.h"

#include <fmt/format.h>

#include <algorithm>

namespace migrx {
namespace {

// How many were dropped since the last sound segment, where that is to be told; 0: not yet, or told before.
uint64_t in_a_row(uint64_t now, uint64_t then, bool& told) {
  if (told || now < then + TrafficWatch::kDropped) return 0;
  told = true;
  return now - then;
}

}  // namespace

std::string TrafficWatch::look(const TrafficFacts& facts) {
  if (facts.segments != sound_.segments) {
    const double silence_s = facts.now_s - sound_.now_s;
    if (silence_s >= kOutage_s) {
      // A second one while senders still wait for the end of the first adds to their wait.
      outage_s_ = silence_s + (sound_.now_s - back_s_ < outage_s_ ? outage_s_ : 0);
      back_s_ = facts.now_s;
    }
    sound_ = facts;
  }
  if (const uint64_t dropped = in_a_row(facts.wrong_checksums, sound_.wrong_checksums, checksums_told_))
    return fmt::format(
        "{} packets in a row came with a wrong checksum and were dropped: on a virtual port the sender "
        "leaves checksums to a NIC that is not there; switch checksum offload off at the source's end "
        "(ethtool -K INTERFACE tx off)",
        dropped);
  if (const uint64_t dropped = in_a_row(facts.stacked_vlans, sound_.stacked_vlans, stacked_told_))
    return fmt::format(
        "{} frames in a row came with two VLAN tags, or with a provider's (QinQ, 802.1ad), and were dropped: "
        "if the source's are among them, have the switch take the outer tag off at this port; one 802.1Q tag "
        "may stay (--vlan)",
        dropped);
  if (facts.in_order != progress_.in_order || facts.connections == 0) progress_ = facts;
  if (!hole_told_ && facts.now_s - std::max(progress_.now_s, back_s_ + outage_s_) >= kHole_s &&
      facts.acks_from_behind_hole >= progress_.acks_from_behind_hole + kAnswers) {
    hole_told_ = true;
    return fmt::format(
        "for {:.0f} s the source's small packets have come and its large ones have not: the path does not "
        "carry --mtu {}. `ping -M do -s {} {}` at the source shows it; start migrx with the --mtu that the "
        "path does carry",
        facts.now_s - progress_.now_s, mtu_, mtu_ - (address_.find(':') == std::string::npos ? 28 : 48),
        address_);
  }
  return {};
}

}  // namespace migrx

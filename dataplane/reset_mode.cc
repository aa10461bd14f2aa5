#include "dataplane/reset_mode.h"

#include <utility>

namespace migrx {

ResetMode::ResetMode(const ResetModeConfig& config)
    : config_(config), untold_(static_cast<uint32_t>(config.lost.size())) {
  peers_.reserve(config.lost.size());
  for (const LostConnection& lost : config.lost) peers_.push_back({lost});
}

void ResetMode::on_segment(const FourTuple& tuple, bool rst, uint64_t now_ns) noexcept {
  bool asked = false;
  for (Peer& peer : peers_) {
    if (peer.at.tuple != tuple) continue;
    asked = peer.told || peer.gone;
    if (!asked) --untold_;
    (rst ? peer.gone : peer.told) = true;
    if (peer.gone && std::exchange(peer.moved, false)) --moved_;  // no need to ask at the new address
  }
  // What answers our own probes over and over must not keep us here.
  if (!asked) heard_ns_ = now_ns;
}

void ResetMode::on_arp(Ipv4Address local_ip, Ipv4Address ip, EthernetAddress mac) noexcept {
  // A multicast address would turn the probes into broadcasts.
  if ((mac.bytes[0] & std::byte{1}) != std::byte{0}) return;
  for (Peer& peer : peers_) {
    if (peer.at.next_hop != ip || peer.at.tuple.local_ip != local_ip || peer.answered) continue;
    peer.answered = true;
    if (peer.gone || peer.at.link.remote_mac == mac) continue;
    peer.at.link.remote_mac = mac;
    peer.moved = true;
    ++moved_;
  }
}

std::optional<ResetMode::Probe> ResetMode::poll_output(uint64_t now_ns) noexcept {
  const auto syn = [this](Peer& peer) {
    if (std::exchange(peer.moved, false)) --moved_;
    return Probe{Probe::Kind::syn, &peer.at};
  };
  if (now_ns >= due_ns_) {
    while (next_ < peers_.size()) {
      Peer& peer = peers_[next_];
      // Channels of one source lie side by side: one question does for all.
      if (!peer.gone && asked_ != peer.at.next_hop) {
        asked_ = peer.at.next_hop;
        return Probe{Probe::Kind::who_has, &peer.at};
      }
      ++next_;
      if (!peer.gone) return syn(peer);
    }
    next_ = 0;
    asked_ = {};
    due_ns_ = now_ns + config_.probe_ns;
    for (Peer& peer : peers_) peer.answered = false;
  }
  if (moved_ > 0)
    for (Peer& peer : peers_)
      if (peer.moved) return syn(peer);
  return std::nullopt;
}

bool ResetMode::over(uint64_t now_ns) const noexcept {
  if (now_ns - since_ns_ >= config_.max_ns) return true;
  return untold_ == 0 && now_ns - heard_ns_ >= config_.quiet_ns;
}

}  // namespace migrx

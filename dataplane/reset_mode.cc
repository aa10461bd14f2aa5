#include "dataplane/reset_mode.h"

namespace migrx {

ResetMode::ResetMode(const ResetModeConfig& config)
    : config_(config), untold_(static_cast<uint32_t>(config.lost.size())) {
  peers_.reserve(config.lost.size());
  for (const LostConnection& lost : config.lost) peers_.push_back({lost});
}

void ResetMode::on_segment(const FourTuple& tuple, bool rst, uint64_t now_ns) noexcept {
  heard_ns_ = now_ns;
  for (Peer& peer : peers_) {
    if (peer.at.tuple != tuple) continue;
    if (!peer.told && !peer.gone) --untold_;
    (rst ? peer.gone : peer.told) = true;
  }
}

void ResetMode::on_arp(Ipv4Address ip, EthernetAddress mac, uint64_t now_ns) noexcept {
  // A multicast address would turn the probes into broadcasts.
  if ((mac.bytes[0] & std::byte{1}) != std::byte{0}) return;
  for (Peer& peer : peers_) {
    if (peer.at.next_hop != ip || peer.at.link.remote_mac == mac) continue;
    peer.at.link.remote_mac = mac;
    due_ns_ = now_ns;  // that is news: the SYN need not wait
  }
}

std::optional<ResetMode::Probe> ResetMode::poll_output(uint64_t now_ns) noexcept {
  if (now_ns < due_ns_) return std::nullopt;
  for (; next_ < peers_.size(); ++next_) {
    Peer& peer = peers_[next_];
    if (peer.gone) continue;
    // Channels of one source lie side by side: one question does for all.
    if (asked_ != peer.at.next_hop) {
      asked_ = peer.at.next_hop;
      return Probe{Probe::Kind::who_has, &peer.at};
    }
    ++next_;
    return Probe{Probe::Kind::syn, &peer.at};
  }
  next_ = 0;
  asked_ = {};
  due_ns_ = now_ns + config_.probe_ns;
  return std::nullopt;
}

bool ResetMode::over(uint64_t now_ns) const noexcept {
  if (now_ns - since_ns_ >= config_.max_ns) return true;
  return untold_ == 0 && now_ns - heard_ns_ >= config_.quiet_ns;
}

}  // namespace migrx

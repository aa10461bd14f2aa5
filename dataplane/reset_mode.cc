#include "dataplane/reset_mode.h"

#include <algorithm>
#include <utility>

namespace migrx {
namespace {

ResetModeConfig with_board(ResetModeConfig config) {
  if (config.board == nullptr) config.board = std::make_shared<ResetBoard>(config.lost.size());
  return config;
}

}  // namespace

ResetMode::ResetMode(const ResetModeConfig& config) : config_(with_board(config)) {
  peers_.reserve(config.lost.size());
  for (const LostConnection& lost : config.lost) peers_.push_back({lost});
}

void ResetMode::on_segment(const FourTuple& tuple, bool rst, uint64_t now_ns) noexcept {
  bool asked = false;
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    Peer& peer = peers_[i];
    if (peer.at.tuple != tuple) continue;
    asked = config_.board->state(i) != ResetBoard::State::lost;
    config_.board->advance(i, rst ? ResetBoard::State::closed : ResetBoard::State::reset_sent);
    if (closed(peer) && std::exchange(peer.moved, false)) --moved_;  // no need to ask at the new address
  }
  // What answers our own probes over and over must not keep us here.
  if (!asked) heard_ns_ = now_ns;
}

bool ResetMode::answers_for(const IpAddress& local_ip) const noexcept {
  return std::any_of(peers_.begin(), peers_.end(),
                     [&](const Peer& peer) { return peer.at.tuple.local_ip == local_ip && !closed(peer); });
}

bool ResetMode::is_lost(const FourTuple& tuple) const noexcept {
  return std::any_of(peers_.begin(), peers_.end(),
                     [&](const Peer& peer) { return peer.at.tuple == tuple && !closed(peer); });
}

void ResetMode::on_neighbour(const IpAddress& local_ip, const IpAddress& ip, EthernetAddress mac) noexcept {
  // A multicast address would turn the probes into broadcasts.
  if ((mac.bytes[0] & std::byte{1}) != std::byte{0}) return;
  for (Peer& peer : peers_) {
    if (peer.at.next_hop != ip || peer.at.tuple.local_ip != local_ip || peer.answered) continue;
    peer.answered = true;
    if (closed(peer) || peer.at.link.remote_mac == mac) continue;
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
  if (!config_.asks) return std::nullopt;
  if (now_ns >= due_ns_) {
    while (next_ < peers_.size()) {
      Peer& peer = peers_[next_];
      // Channels of one source lie side by side: one question does for all.
      if (!closed(peer) && asked_ != peer.at.next_hop) {
        asked_ = peer.at.next_hop;
        return Probe{Probe::Kind::who_has, &peer.at};
      }
      ++next_;
      if (!closed(peer)) return syn(peer);
    }
    next_ = 0;
    asked_ = {};
    due_ns_ = now_ns + config_.probe_ns;
    for (Peer& peer : peers_) peer.answered = false;
  }
  if (moved_ > 0)
    for (Peer& peer : peers_)
      if (peer.moved) return syn(peer);  // closed since, by what another core heard: once more does no harm
  return std::nullopt;
}

bool ResetMode::over(uint64_t now_ns) const noexcept {
  if (now_ns - since_ns_ >= config_.max_ns) return true;
  for (std::size_t i = 0; i < peers_.size(); ++i)
    if (config_.board->state(i) == ResetBoard::State::lost) return false;
  return now_ns - heard_ns_ >= config_.quiet_ns;
}

}  // namespace migrx

#include "dataplane/reset_modes.h"

#include <algorithm>

namespace migrx {

bool ResetModes::request(const ResetModeConfig& config) {
  for (Place& place : places_) {
    if (place.state.load(std::memory_order_acquire) != State::free) continue;  // pairs with look()
    place.mode = std::make_unique<ResetMode>(config);
    place.state.store(State::asked, std::memory_order_release);
    requests_.fetch_add(1, std::memory_order_release);
    return true;
  }
  return false;
}

bool ResetModes::over() const noexcept {
  return requests_.load(std::memory_order_relaxed) > 0 &&
         std::all_of(places_.begin(), places_.end(), [](const Place& place) {
           const State state = place.state.load(std::memory_order_acquire);
           return state == State::free || state == State::over;
         });
}

bool ResetModes::look(uint64_t now_ns) noexcept {
  bool refuses = false;
  if (const uint32_t asked = requests_.load(std::memory_order_acquire); asked != begun_) {
    for (Place& place : places_) {
      if (place.state.load(std::memory_order_acquire) != State::asked) continue;
      place.state.store(State::active, std::memory_order_relaxed);
      active_.push_back(&place);
      place.mode->start(now_ns);
      refuses = refuses || place.mode->config().refuses_all;
      ++begun_;
    }
  }
  refusing_ = refusing_ || refuses;
  std::erase_if(active_, [&](Place* const place) {
    if (!place->mode->over(now_ns)) return false;
    // A RST may be lost: a peer that is not known to be CLOSED is asked as long as anybody else is served.
    const bool stays = place->mode->config().refuses_all || !place->mode->spent(now_ns);
    place->state.store(stays ? State::over : State::free, std::memory_order_release);
    return !stays;
  });
  return refuses;
}

void ResetModes::on_segment(const FourTuple& tuple, bool rst, uint64_t now_ns) noexcept {
  for (Place* const place : active_) place->mode->on_segment(tuple, rst, now_ns);
}

void ResetModes::on_neighbour(const IpAddress& local_ip, const IpAddress& ip, EthernetAddress mac) noexcept {
  for (Place* const place : active_) place->mode->on_neighbour(local_ip, ip, mac);
}

std::optional<ResetMode::Probe> ResetModes::poll_output(uint64_t now_ns) noexcept {
  for (Place* const place : active_)
    if (const std::optional<ResetMode::Probe> probe = place->mode->poll_output(now_ns)) return probe;
  return std::nullopt;
}

bool ResetModes::answers_for(const IpAddress& local_ip) const noexcept {
  return std::any_of(active_.begin(), active_.end(),
                     [&](const Place* place) { return place->mode->answers_for(local_ip); });
}

bool ResetModes::is_lost(const FourTuple& tuple) const noexcept {
  return std::any_of(active_.begin(), active_.end(),
                     [&](const Place* place) { return place->mode->is_lost(tuple); });
}

}  // namespace migrx

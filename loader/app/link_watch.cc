#include "loader/app/link_watch.h"

#include <fmt/format.h>

namespace migrx {

LinkWatch::LinkWatch(std::vector<std::string> ports) {
  for (std::string& port : ports) states_.push_back({std::move(port)});
}

std::string LinkWatch::look(std::size_t port, bool up, const std::string& words, double now_s) {
  State& state = states_[port];
  if (state.up == up) return {};
  const double lasted_s = now_s - state.since_s;
  state.up = up;
  state.since_s = now_s;
  ++changes_;
  if (events_.size() < kEventsMax) events_.push_back({now_s, state.port, up});
  if (!up) return fmt::format("link of {} is down: what is under way waits for it", state.port);
  return fmt::format("link of {} is {} again after {:.1f} s", state.port, words, lasted_s);
}

bool link_comes_with_peer(const std::string& devargs) {
  return devargs.starts_with("net_memif") || devargs.starts_with("net_vhost");
}

}  // namespace migrx

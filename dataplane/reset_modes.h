// The reset modes of one poll core: one for each predecessor, or migration that has ended, whose peers are
// still to be told (dataplane/reset_mode.h).
//
//   asked for ──the core's next turn──▶ active ──▶ over ──▶ spent, its place is free
//
// One that refuses everybody is never spent: nothing else is served any more.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "dataplane/reset_mode.h"

namespace migrx {

class ResetModes {
 public:
  // Under way at a time.
  static constexpr uint32_t kMax = 256;

  ResetModes() { active_.reserve(kMax); }

  // ---- Control thread
  // Begins with the core's next turn. False: kMax are under way. Allocates.
  [[nodiscard]] bool request(const ResetModeConfig& config);
  // At least one was asked for, and every one is over.
  [[nodiscard]] bool over() const noexcept;

  // ---- The poll core's thread
  // Some are active, or asked for.
  [[nodiscard]] bool pending() const noexcept {
    return requests_.load(std::memory_order_acquire) != begun_ || !active_.empty();  // pairs with request()
  }
  // Begins those that were asked for, and lets go of those that are over. True: one that refuses everybody
  // has begun.
  bool look(uint64_t now_ns) noexcept;
  [[nodiscard]] bool any() const noexcept { return !active_.empty(); }
  [[nodiscard]] bool refusing() const noexcept { return refusing_; }

  // As ResetMode's, of all that are active.
  void on_segment(const FourTuple& tuple, bool rst, uint64_t now_ns) noexcept;
  void on_neighbour(const IpAddress& local_ip, const IpAddress& ip, EthernetAddress mac) noexcept;
  [[nodiscard]] std::optional<ResetMode::Probe> poll_output(uint64_t now_ns) noexcept;
  [[nodiscard]] bool answers_for(const IpAddress& local_ip) const noexcept;
  [[nodiscard]] bool is_lost(const FourTuple& tuple) const noexcept;

 private:
  enum class State : uint8_t { free, asked, active, over };
  struct Place {
    std::unique_ptr<ResetMode> mode;  // the control thread's while free
    std::atomic<State> state{State::free};
  };
  std::array<Place, kMax> places_;
  std::atomic<uint32_t> requests_{0};
  uint32_t begun_ = 0;
  std::vector<Place*> active_;  // never grows beyond kMax
  bool refusing_ = false;
};

}  // namespace migrx

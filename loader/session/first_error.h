// Keeps the first of the errors that several threads may report. shut() closes the door: later
// errors change nothing.
#pragma once

#include <atomic>
#include <cstdint>

#include "loader/stream/error.h"

namespace migrx {

//   open ─set()─▶ writing ─▶ there          open ─shut()─▶ shut ─overturn()─▶ there
//
// Any thread, apart from what is marked otherwise. Nothing ever waits.
class FirstError {
 public:
  // Keeps the error if it is the first and the door is open.
  void set(const StreamError& error) noexcept {
    State expected = State::open;
    if (!state_.compare_exchange_strong(expected, State::writing, std::memory_order_relaxed)) return;
    write(error);
  }
  // From here on set() does nothing. False: an error came first. May be repeated.
  [[nodiscard]] bool shut() noexcept {
    State expected = State::open;
    return state_.compare_exchange_strong(expected, State::shut, std::memory_order_acq_rel) ||
           expected == State::shut;
  }
  // An error after all. After shut(), and by one thread.
  void overturn(const StreamError& error) noexcept { write(error); }

  // get() may be called.
  [[nodiscard]] bool is_set() const noexcept {
    return state_.load(std::memory_order_acquire) == State::there;  // pairs with write()
  }
  // An error is there, or will be in a moment.
  [[nodiscard]] bool is_coming() const noexcept {
    const State state = state_.load(std::memory_order_acquire);
    return state == State::writing || state == State::there;
  }
  [[nodiscard]] bool is_shut() const noexcept {
    return state_.load(std::memory_order_acquire) == State::shut;
  }
  [[nodiscard]] const StreamError& get() const noexcept { return error_; }

 private:
  enum class State : uint8_t { open, writing, there, shut };
  void write(const StreamError& error) noexcept {
    error_ = error;
    state_.store(State::there, std::memory_order_release);  // pairs with is_set()
  }
  std::atomic<State> state_{State::open};
  StreamError error_;
};

}  // namespace migrx

// SIGINT, SIGTERM, SIGHUP and SIGUSR1 as something a loop can look at.
#pragma once

#include <signal.h>

#include "loader/app/interruption.h"

namespace migrx {

// SIGINT, SIGTERM, SIGHUP and SIGUSR1, those excepted that are ignored: whoever started us wants them to stay
// so (nohup, a script's background job). A blocked signal would be kept although it is ignored.
[[nodiscard]] sigset_t handled_signals();

// Blocks the signals for the whole process (threads inherit the mask, so construct it before starting any)
// and takes them one by one.
class SignalWatch final : public Interruption {
 public:
  SignalWatch();
  ~SignalWatch() override;
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  // Waits at most timeout_us microseconds, and no longer than until other_fd (-1: none) is readable; returns
  // the signal's number, or 0.
  [[nodiscard]] int wait(int timeout_us, int other_fd = -1) const;
  // One has come and was not taken yet.
  [[nodiscard]] bool pending() const override;
  [[nodiscard]] int fd() const noexcept override { return fd_; }

 private:
  int fd_;
};

}  // namespace migrx

// Tells systemd, or another manager that reads $NOTIFY_SOCKET, that migrx is ready, what it is doing, and
// that it is stopping; and, where the manager asks for that, that all threads are alive (sd_notify(3), whose
// protocol is one datagram for each message).
//
// Departure: not libsystemd's sd_notify(), which waits while the manager does not read. Here a message that
// finds no room is lost, except READY and the latest status, which are sent again later: no manager can hold
// a migration up.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "numa/descriptor.h"

namespace migrx {

// $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID as they were given.
struct ServiceEnvironment {
  std::string notify_socket;
  std::string watchdog_usec;
  std::string watchdog_pid;
};
[[nodiscard]] ServiceEnvironment service_environment();

// Control thread only. Never waits, never fails: a manager that does not listen is not told.
class ServiceManager {
 public:
  // `main_pid`: the process that the manager started, the supervisor's or our own. Messages say that they are
  // its, where the kernel permits that, so that NotifyAccess=main is enough.
  ServiceManager(const ServiceEnvironment& environment, pid_t main_pid);

  [[nodiscard]] bool present() const noexcept { return socket_.get() >= 0; }
  // A warning for the operator when $NOTIFY_SOCKET is no usable address; "": none.
  [[nodiscard]] const std::string& warning() const noexcept { return warning_; }

  void ready(double now_s);
  // One line; at most one message in a second, of several the last.
  void status(std::string text, double now_s);
  // From here on the service goes down; `text`: why.
  void stopping(const std::string& text);
  // Call often: sends what is due. `turns`: of each thread that polls or loads, how many it has made. One
  // that makes none between two messages hangs, and the watchdog hears nothing more.
  void look(double now_s, const std::vector<uint64_t>& turns);
  // Seconds between two signs of life, half of what was asked for; 0: none are wanted.
  [[nodiscard]] double watchdog_s() const noexcept { return watchdog_s_; }

 private:
  // False: no room now. True also when there is no manager.
  bool send(const std::string& message);

  Descriptor socket_;
  std::string address_;  // as the kernel has it, with a NUL first where it is abstract
  pid_t main_pid_;
  bool as_main_ = true;  // the kernel lets us speak for the main process
  std::string warning_;
  double watchdog_s_ = 0;
  bool ready_ = false;       // ready() was called
  bool ready_said_ = false;  // and told
  std::string status_;
  bool status_due_ = false;
  double status_s_ = -1e9;
  double alive_s_ = 0;
  std::vector<uint64_t> turns_;
};

}  // namespace migrx

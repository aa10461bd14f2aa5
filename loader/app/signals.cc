#include "loader/app/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <initializer_list>

namespace migrx {

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&set, signal);
  }
  return set;
}

SignalWatch::SignalWatch() {
  const sigset_t mask = handled_signals();
  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  // wait() is somebody's clock: 50 us must not become 100, as with the kernel's default slack.
  ::prctl(PR_SET_TIMERSLACK, 1'000UL, 0, 0, 0);
  fd_ = ::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
}

SignalWatch::~SignalWatch() {
  ::close(fd_);
}

int SignalWatch::wait(int timeout_us, int other_fd) const {
  std::array<pollfd, 2> descriptors{{{fd_, POLLIN, 0}, {other_fd, POLLIN, 0}}};  // poll() skips negative ones
  const timespec timeout{timeout_us / 1'000'000, (timeout_us % 1'000'000) * 1000L};
  if (::ppoll(descriptors.data(), descriptors.size(), &timeout, nullptr) <= 0) return 0;
  signalfd_siginfo info;
  if (::read(fd_, &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return 0;
  return static_cast<int>(info.ssi_signo);
}

bool SignalWatch::pending() const {
  pollfd descriptor{fd_, POLLIN, 0};
  return ::poll(&descriptor, 1, 0) > 0;
}

}  // namespace migrx

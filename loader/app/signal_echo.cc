#include "loader/app/signal_echo.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <system_error>

namespace migrx {
namespace {

void say_when_heard(int interruption, int over, Terminal& terminal) {
  std::array<pollfd, 2> waits{{{interruption, POLLIN, 0}, {over, POLLIN, 0}}};
  while (::poll(waits.data(), waits.size(), -1) < 0 && errno == EINTR) {
  }
  if (waits[0].revents != 0) terminal.say("signal heard: ending as soon as the ports are set up");
}

}  // namespace

SignalEcho::SignalEcho(const Interruption& interruption, Terminal& terminal)
    : over_(::eventfd(0, EFD_CLOEXEC)) {
  if (!over_) throw std::system_error(errno, std::generic_category(), "eventfd");
  thread_ = std::thread(
      [fd = interruption.fd(), over = over_.get(), &terminal] { say_when_heard(fd, over, terminal); });
}

SignalEcho::~SignalEcho() {
  const uint64_t one = 1;
  (void)!::write(over_.get(), &one, sizeof one);
  thread_.join();
}

}  // namespace migrx

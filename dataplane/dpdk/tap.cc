#include "dataplane/dpdk/tap.h"

#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>

namespace migrx {

namespace fs = std::filesystem;

void block_tap_signals() noexcept {
  sigset_t signals;
  sigemptyset(&signals);
  for (int number = SIGRTMIN; number <= SIGRTMAX; ++number) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

uint32_t silence_tap_signals() noexcept {
  uint32_t silenced = 0;
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator("/proc/self/fd")) {
      std::error_code error;
      if (fs::read_symlink(entry.path(), error) != "/dev/net/tun" || error) continue;
      const std::string name = entry.path().filename();
      int fd = -1;
      std::from_chars(name.data(), name.data() + name.size(), fd);
      const int flags = fcntl(fd, F_GETFL);
      if (flags < 0 || (flags & O_ASYNC) == 0) continue;
      if (fcntl(fd, F_SETFL, flags & ~O_ASYNC) == 0) ++silenced;
    }
  } catch (const fs::filesystem_error&) {
    // No /proc: it stays slow, and right.
  }
  return silenced;
}

std::string set_interface_mtu(const std::string& interface, uint32_t mtu) {
  ifreq request{};
  if (interface.empty() || interface.size() >= sizeof request.ifr_name) return "no such interface";
  interface.copy(request.ifr_name, interface.size());
  request.ifr_mtu = static_cast<int>(mtu);
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::strerror(errno);
  std::string result = ioctl(fd, SIOCSIFMTU, &request) == 0 ? "" : std::strerror(errno);
  close(fd);
  return result;
}

}  // namespace migrx

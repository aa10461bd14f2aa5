#include "loader/destination/process_watch.h"

#include <poll.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

namespace migrx {

std::string ProcessWatch::watch(pid_t process) {
  process_ = process;
  fd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
  if (!fd_.empty()) return {};
  return "process " + std::to_string(process) + ": " + std::strerror(errno);
}

bool ProcessWatch::ended() const noexcept {
  if (fd_.empty()) return false;
  pollfd waits{fd_.get(), POLLIN, 0};
  return ::poll(&waits, 1, 0) == 1;
}

}  // namespace migrx

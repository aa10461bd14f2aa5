#include "loader/destination/process_watch.h"

#include <poll.h>

#include <cerrno>
#include <cstring>

#include "numa/process_descriptor.h"

namespace migrx {

std::string ProcessWatch::watch(pid_t process) {
  process_ = process;
  fd_ = hold_process(process);
  if (fd_) return {};
  return "process " + std::to_string(process) + ": " + std::strerror(errno);
}

bool ProcessWatch::ended() const noexcept {
  if (!fd_) return false;
  pollfd waits{fd_.get(), POLLIN, 0};
  return ::poll(&waits, 1, 0) == 1;
}

}  // namespace migrx

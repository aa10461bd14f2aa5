#include "loader/app/inherited_descriptors.h"

#include <fcntl.h>
#include <unistd.h>

namespace migrx {

void hold_standard_descriptors() noexcept {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd)
    // The lowest free number is taken, which is this one.
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) < 0) return;
}

std::string ready_fd_problem(int fd) {
  if (fd < 0) return {};
  const std::string name = "--ready-fd " + std::to_string(fd);
  const int flags = ::fcntl(fd, F_GETFD);
  // execve() closes those with the flag: it is not one that was passed on.
  if (flags < 0 || (flags & FD_CLOEXEC) != 0)
    return name +
           ": no such descriptor was passed on to migrx (sudo closes all above 2): open it where "
           "migrx is started, such as by " +
           std::to_string(fd) + "> FIFO in a shell";
  const int mode = ::fcntl(fd, F_GETFL) & O_ACCMODE;
  if (mode != O_WRONLY && mode != O_RDWR)
    return name + ": is open for reading only: give the end of the pipe that is written to";
  return {};
}

void tell_ready(const std::string& line, int fd, Terminal& terminal) {
  terminal.say(line);
  if (fd < 0) return;
  const std::string message = line + "\n";
  if (::write(fd, message.data(), message.size()) != static_cast<ssize_t>(message.size()))
    terminal.warn("cannot write to --ready-fd");
  ::close(fd);
}

}  // namespace migrx

#include "loader/destination/network_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace migrx {
namespace {

constexpr const char* kOurs = "/proc/thread-self/ns/net";

}  // namespace

Descriptor network_namespace_of(pid_t process, std::string& problem) {
  const std::string path = "/proc/" + std::to_string(process) + "/ns/net";
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat theirs {};
  struct stat ours {};
  if (!fd || ::fstat(fd.get(), &theirs) != 0 || ::stat(kOurs, &ours) != 0) {
    problem = path + ": " + std::strerror(errno) + ": is that process still there, and are you root?";
    return {};
  }
  if (theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino) return {};
  return fd;
}

Descriptor socket_in(int network_namespace, int family, int type, int protocol) {
  type |= SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (network_namespace < 0) return Descriptor(::socket(family, type, protocol));
  const Descriptor home(::open(kOurs, O_RDONLY | O_CLOEXEC));
  if (!home || ::setns(network_namespace, CLONE_NEWNET) != 0) return {};
  Descriptor socket(::socket(family, type, protocol));
  const int error = errno;
  if (::setns(home.get(), CLONE_NEWNET) != 0) {
    // Every later socket of this thread would be in the wrong namespace.
    std::perror("migrx: cannot return to its network namespace");
    std::abort();
  }
  errno = error;
  return socket;
}

}  // namespace migrx

#include "loader/control/peer_rights.h"

#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "numa/process_user.h"

namespace migrx {
namespace {

std::string problem_of(const char* what) {
  return std::string("cannot take the client's rights: ") + what + ": " + std::strerror(errno);
}

std::vector<gid_t> sorted(std::vector<gid_t> groups) {
  std::sort(groups.begin(), groups.end());
  return groups;
}

// Of the calling thread alone, for ever.
std::string become(const ControlPeer& peer) {
  // Only who differs needs CAP_SETGID.
  if (sorted(peer.groups) != sorted(this_process().groups) &&
      ::syscall(SYS_setgroups, peer.groups.size(), peer.groups.data()) != 0)
    return problem_of("setgroups");
  // These two tell what was there before, whether it was changed or not: the second call tells.
  (void)::syscall(SYS_setfsgid, peer.gid);
  if (static_cast<gid_t>(::syscall(SYS_setfsgid, peer.gid)) != peer.gid) {
    errno = EPERM;
    return problem_of("setfsgid");
  }
  (void)::syscall(SYS_setfsuid, peer.uid);
  if (static_cast<uid_t>(::syscall(SYS_setfsuid, peer.uid)) != peer.uid) {
    errno = EPERM;
    return problem_of("setfsuid");
  }
  // A user's process has none, whatever this one was given to start with.
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) return problem_of("capset");
  return {};
}

}  // namespace

std::string run_as(const ControlPeer& peer, const std::function<void()>& action) {
  if (peer.uid == static_cast<uid_t>(-1)) return "nobody knows who the client is";
  if (peer.root()) {
    action();
    return {};
  }
  std::string problem;
  try {
    std::thread([&] {
      // The kernel takes it from the whole process when one of its threads changes who it is; core dumps and
      // debuggers are to work as before. Nobody gains by it: debuggers look at the real user.
      const int dumpable = ::prctl(PR_GET_DUMPABLE);
      problem = become(peer);
      if (dumpable == 1) (void)::prctl(PR_SET_DUMPABLE, 1UL, 0UL, 0UL, 0UL);
      if (problem.empty()) action();
    }).join();
  } catch (const std::system_error& error) {
    problem = std::string("no thread for the client's rights: ") + error.what();
  }
  return problem;
}

Descriptor connect_as(const ControlPeer& peer, const std::string& path, std::string& problem) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path[0] != '/' || path.find('\0') != std::string::npos ||
      path.size() >= sizeof address.sun_path) {
    problem = path + ": a UNIX socket's path begins with / and is shorter than 108 bytes";
    return Descriptor{};
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  int error = socket ? 0 : errno;
  if (socket)
    problem = run_as(peer, [&] {
      if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        error = errno;
    });
  if (problem.empty() && error != 0) problem = std::strerror(error);
  if (problem.empty() && !peer.root()) {
    const std::optional<ControlPeer> listener = peer_of(socket.get());
    if (!listener || listener->uid != peer.uid) problem = "another user listens there: only root may name it";
  }
  if (problem.empty()) return socket;
  problem = path + ": " + problem;
  return Descriptor{};
}

bool owned_by(const ControlPeer& peer, pid_t process) {
  return peer.root() ? users_of(process).has_value() : only_user_of(process) == peer.uid;
}

}  // namespace migrx

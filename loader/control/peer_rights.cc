#include "loader/control/peer_rights.h"

#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "numa/core_dumps.h"

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
      restore_core_dumps(dumpable);
      if (problem.empty()) action();
    }).join();
  } catch (const std::system_error& error) {
    problem = std::string("no thread for the client's rights: ") + error.what();
  }
  return problem;
}

}  // namespace migrx

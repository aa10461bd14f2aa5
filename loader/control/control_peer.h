// The process at the other end of a UNIX socket.
#pragma once

#include <sys/types.h>

#include <optional>
#include <vector>

namespace migrx {

// As the kernel knew it when that process connected, or began to listen (SO_PEERCRED, SO_PEERGROUPS of
// socket(7)). The process may have ended since, and its number may be another's.
struct ControlPeer {
  pid_t pid = 0;
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
  std::vector<gid_t> groups;  // supplementary
  [[nodiscard]] bool root() const noexcept { return uid == 0; }
};

// nullopt: it is no connected UNIX socket; errno says more.
[[nodiscard]] std::optional<ControlPeer> peer_of(int socket);
// This process, as a peer of its own.
[[nodiscard]] ControlPeer this_process();

}  // namespace migrx

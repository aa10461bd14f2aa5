#include "loader/control/control_peer.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "numa/process_user.h"

namespace migrx {

std::optional<ControlPeer> peer_of(int socket) {
  const std::optional<ucred> credentials = peer_credentials(socket);
  if (!credentials) return std::nullopt;
  ControlPeer peer;
  peer.pid = credentials->pid;
  peer.uid = credentials->uid;
  peer.gid = credentials->gid;
  socklen_t length = 0;
  // The kernel says how much room it wants; NGROUPS_MAX is 65536.
  for (socklen_t room = 16 * sizeof(gid_t);; room = length) {
    peer.groups.resize(room / sizeof(gid_t));
    length = room;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &length) == 0) break;
    if (errno != ERANGE || length <= room) return std::nullopt;
  }
  peer.groups.resize(length / sizeof(gid_t));
  return peer;
}

ControlPeer this_process() {
  ControlPeer self;
  self.pid = ::getpid();
  self.uid = ::geteuid();
  self.gid = ::getegid();
  const int count = ::getgroups(0, nullptr);
  self.groups.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  if (count > 0 && ::getgroups(count, self.groups.data()) < 0) self.groups.clear();
  return self;
}

}  // namespace migrx

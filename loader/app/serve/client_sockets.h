// The sockets of a destination that a client other than root has named.
//
// They are found with the client's rights below the folders that are meant for clients' files, and held: what
// is connected later, by the control thread too, is that very socket, and no path of the client's is walked
// for it. Who listens there must be that user (SocketAccess).
#pragma once

#include <string>
#include <vector>

#include "loader/app/job_options.h"
#include "loader/control/client_files.h"
#include "loader/control/control_peer.h"

namespace migrx {

// A job's own thread: each call blocks while a path is walked. Outlives all connections to its sockets.
class ClientSockets {
 public:
  ClientSockets(const ControlPeer& peer, const ClientFiles& files) : peer_(peer), files_(files) {}

  // Each fills what `options` has for the access to the socket, where there is such an option and the peer is
  // not root. Throws SetupError.
  void find_qmp(JobOptions& options);
  // After the destination was armed, which may make its socket.
  void find_handoff(JobOptions& options);
  // Nothing is connected any more.
  void close() noexcept { held_.clear(); }

 private:
  [[nodiscard]] SocketAccess find(const char* option, const std::string& address);

  const ControlPeer& peer_;
  const ClientFiles& files_;
  std::vector<Descriptor> held_;
};

// What such a client may not ask for, however it is allowed to see it; empty: nothing of that.
[[nodiscard]] std::string not_for_clients(const JobOptions& options);

}  // namespace migrx

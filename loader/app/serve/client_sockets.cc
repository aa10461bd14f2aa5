#include "loader/app/serve/client_sockets.h"

#include <utility>

#include "loader/app/setup_error.h"

namespace migrx {

SocketAccess ClientSockets::find(const char* option, const std::string& address) {
  std::string path;
  (void)parse_unix_address(address, path);
  Descriptor socket;
  if (const std::string problem = files_.open_socket(peer_, path, socket); !problem.empty())
    throw SetupError(std::string(option) + " " + problem);
  held_.push_back(std::move(socket));
  return {"/proc/self/fd/" + std::to_string(held_.back().get()), peer_.uid};
}

void ClientSockets::find_qmp(JobOptions& options) {
  if (!peer_.root() && options.qmp) options.qmp_access = find("--qmp", *options.qmp);
}

void ClientSockets::find_handoff(JobOptions& options) {
  if (!peer_.root() && options.handoff) options.handoff_access = find("--handoff", *options.handoff);
}

std::string not_for_clients(const JobOptions& options) {
  std::string path;
  if (options.handoff && !parse_unix_address(*options.handoff, path))
    return "handoff: only root may name an address of TCP, where any user's process may listen: give the "
           "destination a UNIX socket below a folder for clients (unix:PATH)";
  if (options.destination_pid)
    return "destination-pid: only root may name a process: leave it out, and the QEMU that listens at "
           "handoff is found";
  return {};
}

}  // namespace migrx

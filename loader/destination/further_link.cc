#include "loader/destination/further_link.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "loader/destination/network_namespace.h"

namespace migrx {
namespace {

std::string with_errno(const std::string& what, int error) {
  return error == 0 ? what : what + ": " + std::strerror(error);
}

}  // namespace

bool FurtherLink::connect(const FurtherAddress& to, uint64_t now_ns, std::string& problem) {
  if (connected_) return true;
  if (!socket_) {
    socket_ = socket_in(to.namespace_fd, to.address.family(), SOCK_STREAM, 0);
    if (!socket_) {
      problem = with_errno("no socket", errno);
      return false;
    }
  }
  if (::connect(socket_.get(), to.address.get(), to.address.length) == 0 || errno == EISCONN) {
    link_.begin(std::move(socket_), to.security != nullptr ? to.security->connect() : nullptr, now_ns);
    return connected_ = true;
  }
  // Its backlog is as long as it has channels, so a full one empties itself.
  if (errno != EINPROGRESS && errno != EALREADY && errno != EAGAIN && errno != EINTR)
    problem = with_errno("cannot be connected a further time", errno);
  return false;
}

void FurtherLink::close() {
  socket_.reset();
  link_.close();
  connected_ = false;
}

std::string FurtherLink::end_text(const std::string& what) const {
  switch (link_.end()) {
    case DestinationLink::End::none:
      break;
    case DestinationLink::End::closed:
      return with_errno(link_.open() ? "closed " + what : "closed " + what + " within its TLS handshake",
                        link_.error());
    case DestinationLink::End::tls_failed:
      return "TLS of " + what + ": " + link_.tls_problem();
    case DestinationLink::End::tls_late:
      return "does not finish the TLS handshake of " + what;
  }
  return {};
}

}  // namespace migrx

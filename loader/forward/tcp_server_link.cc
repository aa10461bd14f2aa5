#include "loader/forward/tcp_server_link.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "loader/destination/network_namespace.h"

namespace migrx {
namespace {

bool not_now() noexcept {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

}  // namespace

TcpServerLink::TcpServerLink(const SocketAddress& address, int network_namespace) noexcept
    : socket_(socket_in(network_namespace, address.family(), SOCK_STREAM, 0)) {
  if (!socket_) return;
  // Requests and their answers are whole messages already.
  const int on = 1;
  static_cast<void>(::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
  if (::connect(socket_.get(), address.get(), address.length) == 0)
    way_ = Way::open;
  else if (errno == EINPROGRESS)
    way_ = Way::opening;
}

ServerLink::Way TcpServerLink::way() noexcept {
  if (way_ != Way::opening) return way_;
  pollfd waits{socket_.get(), POLLOUT, 0};
  if (::poll(&waits, 1, 0) <= 0) return way_;
  int error = 0;
  socklen_t length = sizeof error;
  const bool known = ::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &length) == 0;
  return way_ = known && error == 0 ? Way::open : Way::failed;
}

ServerLink::Step TcpServerLink::send(std::span<const Bytes> pieces) noexcept {
  std::array<iovec, kPiecesMax> parts;
  const std::size_t count = std::min(pieces.size(), parts.size());
  for (std::size_t i = 0; i < count; ++i)
    parts[i] = {const_cast<std::byte*>(pieces[i].data()), pieces[i].size()};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = count;
  const ssize_t n = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n >= 0) return {.bytes = static_cast<std::size_t>(n)};
  return {.failed = !not_now()};
}

ServerLink::Step TcpServerLink::receive(std::span<std::byte> into) noexcept {
  const ssize_t n = ::recv(socket_.get(), into.data(), into.size(), MSG_DONTWAIT);
  if (n > 0) return {.bytes = static_cast<std::size_t>(n)};
  if (n == 0) return {.ended = true};
  return {.failed = !not_now()};
}

void TcpServerLink::finish_sending() noexcept {
  static_cast<void>(::shutdown(socket_.get(), SHUT_WR));
}

void TcpServerLink::close(bool reset) noexcept {
  if (!socket_) return;
  if (reset) {
    const linger at_once{1, 0};
    static_cast<void>(::setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
  }
  socket_.reset();
  way_ = Way::failed;
}

}  // namespace migrx

#include "loader/destination/socket_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "numa/descriptor.h"
#include "numa/process_user.h"

namespace migrx {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr std::string_view kTcp = "tcp:";

std::string parse_unix(std::string_view path, SocketAddress& out) {
  if (path.empty() || path[0] != '/') return out.text + ": the path of a UNIX socket must begin with /";
  if (path.size() >= sizeof(sockaddr_un::sun_path))
    return out.text + ": a socket's path is shorter than 108 bytes: use another folder, or a symbolic link";
  if (path.find('\0') != std::string_view::npos) return out.text + ": a path holds no NUL";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  std::memcpy(&out.storage, &address, sizeof address);
  out.length = sizeof address;
  out.path = path;
  return {};
}

std::string parse_tcp(std::string_view rest, SocketAddress& out) {
  const std::string expected = out.text +
                               ": expected tcp:ADDRESS:PORT with a numeric address, e.g. "
                               "tcp:127.0.0.1:49152 or tcp:[::1]:49152";
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return expected;
  const std::string_view digits = rest.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out.port);
  if (error != std::errc{} || end != digits.data() + digits.size() || out.port == 0) return expected;
  std::string& host = out.host;
  host = rest.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(out.port);
    if (::inet_pton(AF_INET6, host.c_str(), &address.sin6_addr) != 1) return expected;
    if (IN6_IS_ADDR_UNSPECIFIED(&address.sin6_addr)) return out.text + ": say one address, e.g. [::1]";
    std::memcpy(&out.storage, &address, sizeof address);
    out.length = sizeof address;
    return {};
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(out.port);
  if (::inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) return expected;
  if (address.sin_addr.s_addr == INADDR_ANY) return out.text + ": say one address, e.g. 127.0.0.1";
  std::memcpy(&out.storage, &address, sizeof address);
  out.length = sizeof address;
  return {};
}

}  // namespace

std::string no_way_to(const SocketAddress& address) {
  // A datagram socket takes a route and an address of its own when it is connected (connect(2)), as TCP does.
  const Descriptor probe(::socket(address.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (probe && ::connect(probe.get(), address.get(), address.length) == 0) return {};
  return std::strerror(errno);
}

bool parse_unix_address(const std::string& text, std::string& path) {
  if (!text.starts_with(kUnix)) return false;
  path = text.substr(kUnix.size());
  return !path.empty() && path.size() < sizeof(sockaddr_un::sun_path);
}

std::string parse_socket_address(const std::string& text, SocketAddress& out) {
  out = {};
  out.text = text;
  const std::string_view all = text;
  if (all.starts_with(kUnix)) return parse_unix(all.substr(kUnix.size()), out);
  if (all.starts_with(kTcp)) return parse_tcp(all.substr(kTcp.size()), out);
  return text + ": expected unix:PATH or tcp:ADDRESS:PORT";
}

bool SocketAccess::is_of_user(int socket) const noexcept {
  const std::optional<ucred> peer = peer_credentials(socket);
  return peer && peer->uid == user;
}

}  // namespace migrx

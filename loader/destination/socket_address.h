// Where a destination QEMU waits: "unix:PATH" or "tcp:ADDRESS:PORT", as its own -incoming has it.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>

namespace migrx {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  std::string text;  // as the operator wrote it
  std::string path;  // of a UNIX socket; empty: TCP
  std::string host;  // of TCP: the address alone, without brackets
  uint16_t port = 0;

  [[nodiscard]] bool is_unix() const noexcept { return !path.empty(); }
  [[nodiscard]] int family() const noexcept { return storage.ss_family; }
  [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
};

// How a UNIX socket is reached that somebody else than root has named.
struct SocketAccess {
  std::string path;  // "/proc/self/fd/N", of a descriptor that is held
  uid_t user = 0;    // who must have begun to listen there

  // socket: connected.
  [[nodiscard]] bool is_of_user(int socket) const noexcept;
};
// A UNIX socket as an option names it.
struct UnixSocket {
  std::string path;
  std::optional<SocketAccess> access{};  // nullopt: by its path, whoever listens there

  [[nodiscard]] const std::string& reach() const noexcept { return access ? access->path : path; }
};

// Numeric addresses only (192.0.2.7, [2001:db8::7]): a name could mean another host tomorrow. Empty: `out` is
// filled. Otherwise what is wrong, without the option's name. Pure.
[[nodiscard]] std::string parse_socket_address(const std::string& text, SocketAddress& out);

// Why no TCP connection can be made to that address from here; empty: one can, as far as routes and own
// addresses tell. Sends nothing. Any thread; some system calls.
[[nodiscard]] std::string no_way_to(const SocketAddress& address);

// "unix:/run/vm0.sock" -> "/run/vm0.sock". False: not that form, or longer than a socket address can be.
[[nodiscard]] bool parse_unix_address(const std::string& text, std::string& path);

}  // namespace migrx

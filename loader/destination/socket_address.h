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
  uint16_t port = 0;

  [[nodiscard]] bool is_unix() const noexcept { return !path.empty(); }
  [[nodiscard]] int family() const noexcept { return storage.ss_family; }
  [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
};

// A UNIX socket as an option names it, and as it is reached where somebody else than root has named it.
struct UnixSocket {
  std::string path;
  std::string access{};         // by which it is connected, /proc/self/fd/N; empty: `path`
  std::optional<uid_t> user{};  // who must have made it listen; nullopt: anybody

  [[nodiscard]] const std::string& reach() const noexcept { return access.empty() ? path : access; }
};
// Whether that user began to listen there. socket: connected.
[[nodiscard]] bool is_listener(int socket, uid_t user) noexcept;

// Numeric addresses only (192.0.2.7, [2001:db8::7]): a name could mean another host tomorrow. Empty: `out` is
// filled. Otherwise what is wrong, without the option's name. Pure.
[[nodiscard]] std::string parse_socket_address(const std::string& text, SocketAddress& out);

// Why no TCP connection can be made to that address from here; empty: one can, as far as routes and own
// addresses tell. Sends nothing. Any thread; some system calls.
[[nodiscard]] std::string no_way_to(const SocketAddress& address);

// "unix:/run/vm0.sock" -> "/run/vm0.sock". False: not that form, or longer than a socket address can be.
[[nodiscard]] bool parse_unix_address(const std::string& text, std::string& path);

}  // namespace migrx

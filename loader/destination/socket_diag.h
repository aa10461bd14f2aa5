// Looks at a listening socket without connecting to it: a destination QEMU accepts once (sock_diag(7)).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/handoff/byte_order.h"
#include "loader/destination/socket_address.h"

namespace migrx {

struct ListenSocket {
  uint64_t inode = 0;
  uint32_t backlog = 0;  // what its owner gave to listen(2)
};

// The file of a UNIX socket as sock_diag names it.
struct SocketFile {
  uint32_t device = 0;  // the kernel's own encoding: major << 20 | minor
  uint32_t inode = 0;
};
// One netlink datagram of answers; adds what listens on that address, or on all addresses of its port. done:
// the dump has ended. False: not of the form that Linux gives, or an error message. Pure.
[[nodiscard]] bool parse_inet_listeners(Bytes datagram, const SocketAddress& address,
                                        std::vector<ListenSocket>& exact, std::vector<ListenSocket>& any,
                                        bool& done);
[[nodiscard]] bool parse_unix_listeners(Bytes datagram, const SocketFile& file,
                                        std::vector<ListenSocket>& out, bool& done);

// What listens on a TCP port.
struct PortListener {
  uint64_t inode = 0;
  uint16_t port = 0;
  uint32_t backlog = 0;
  // Where it can be reached from here, as SocketAddress has it: "tcp:127.0.0.1:49152" when it listens on all
  // addresses.
  std::string address;
  bool operator==(const PortListener&) const = default;
};
// One netlink datagram of answers; adds those on ports from `first` to `last`. Otherwise as above.
[[nodiscard]] bool parse_port_listeners(Bytes datagram, uint16_t first, uint16_t last,
                                        std::vector<PortListener>& out, bool& done);
// All on those ports of the network namespace that the descriptor names (-1: ours). problem: why it is not
// known. Some system calls.
[[nodiscard]] std::vector<PortListener> listeners_between(uint16_t first, uint16_t last,
                                                          int network_namespace, std::string& problem);

// What listens on `address` in the network namespace that the descriptor names (-1: ours). path: that of a
// UNIX socket as it is seen from here. nullopt and no problem: nobody listens there. Control thread; some
// system calls.
[[nodiscard]] std::optional<ListenSocket> find_listener(const SocketAddress& address, const std::string& path,
                                                        int network_namespace, std::string& problem);

// The processes that hold a socket: all of /proc is looked through, so that this takes milliseconds. Those of
// other users can be seen by root alone.
[[nodiscard]] std::vector<pid_t> processes_with_socket(uint64_t inode);
[[nodiscard]] bool process_has_socket(pid_t process, uint64_t inode);

}  // namespace migrx

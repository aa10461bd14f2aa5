// What is known of the listeners on the ports of --serve-ports: which are new, which have gone, and at which
// ports a source's SYN is left unanswered for now (dataplane/awaited_ports.h).
//
// A port where nobody listens is awaited, too: a destination may have begun to listen since the last look,
// and its source be quick. When a SYN came and a look after it still finds nobody, the port is closed for
// long enough that the SYN's first retransmission gets RST.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "loader/app/serve/serve_options.h"
#include "loader/destination/port_range.h"
#include "loader/destination/socket_diag.h"

namespace migrx {

// Pure; one thread.
class ListenerTable {
 public:
  // A retransmission comes after a second; the host may be late.
  static constexpr uint64_t kClosedNs = 1'600'000'000;

  explicit ListenerTable(PortRange range);

  struct News {
    std::vector<PortListener> appeared;
    std::vector<uint64_t> gone;  // sockets' inodes
  };
  // What listens now. asked: ports at which a SYN was left unanswered before this look began.
  [[nodiscard]] News take(const std::vector<PortListener>& listeners, const std::vector<uint16_t>& asked,
                          uint64_t now_ns);
  // No guest goes to that socket, nor to another one that listens on its port now (a QEMU has one for each
  // family): as if nobody listened there. Of one that has gone nothing is kept, as its number may be
  // another's.
  void refuse(uint64_t inode);
  // Whether a SYN to that port of the range is left unanswered.
  [[nodiscard]] bool awaited(uint16_t port, uint64_t now_ns) const noexcept;

 private:
  [[nodiscard]] bool destination_on(uint16_t port) const noexcept;

  const PortRange range_;
  std::vector<PortListener> known_;
  std::set<uint64_t> refused_;
  std::vector<uint64_t> closed_until_ns_;  // of each port of the range
};

}  // namespace migrx

// Migrations that nobody asks for: each QEMU of this host that waits on a port of --serve-ports gets one.
//
//   found ──▶ job, queued where there is no room ──over──▶ its socket is refused
//     └──nothing can be given to it──▶ its socket is refused
//
// One for which there is no room is kept in the daemon's queue while its source repeats its SYN (Linux: 127
// s).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loader/app/serve/daemon.h"
#include "loader/app/serve/discovery.h"
#include "loader/app/serve/serve_options.h"
#include "loader/app/terminal.h"

namespace migrx {

// Control thread.
class Intake {
 public:
  static constexpr uint64_t kWaitNs = 120'000'000'000;
  static constexpr uint64_t kLookEveryNs = 20'000'000;

  // All outlive it.
  Intake(Discovery& discovery, Daemon& daemon, Terminal& terminal, FoundTlsOptions tls)
      : discovery_(discovery), daemon_(daemon), terminal_(terminal), tls_(std::move(tls)) {}

  // Call it as often as you like: it looks every 20 ms.
  void look(uint64_t now_ns);

 private:
  void forget(uint64_t socket, uint64_t now_ns);
  // It listens on this port by two sockets, one for each family, and has been seen by the other one.
  [[nodiscard]] bool known(const WaitingQemu& qemu) const noexcept;
  void take_in(WaitingQemu& qemu, uint64_t now_ns);
  void refuse(const WaitingQemu& qemu, const std::string& reason);

  Discovery& discovery_;
  Daemon& daemon_;
  Terminal& terminal_;
  const FoundTlsOptions tls_;
  uint64_t looked_ns_ = 0;
  struct Begun {
    std::string id;  // of the job
    uint16_t port;
    pid_t process;
    uint64_t since_ns;
  };
  std::map<uint64_t, Begun> jobs_;  // by the socket that its QEMU listens on
};

// What `migrx receive` would be told of such a QEMU. nullopt: `out` is filled.
[[nodiscard]] std::optional<ControlError> arguments_for(const WaitingQemu& qemu, const FoundTlsOptions& tls,
                                                        SessionArguments& out);

}  // namespace migrx

// The ports of a migration whose connections go to servers of this host: those of --forward, and that of the
// destination QEMU's NBD server, which is found. Nothing that happens to a forwarded connection ends the
// migration.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "loader/app/arrivals.h"
#include "loader/app/forward_options.h"
#include "loader/app/host.h"
#include "loader/app/live_connections.h"
#include "loader/app/open_port.h"
#include "loader/app/receive_options.h"
#include "loader/app/terminal.h"
#include "loader/forward/forward_thread.h"
#include "loader/session/source_nat.h"

namespace migrx {

class SignalWatch;

// Control thread.
class Forwards {
 public:
  struct Surroundings {
    Host& host;  // runs
    Arrivals& arrivals;
    LiveConnections& live_connections;
    Terminal& terminal;
    std::function<void(const std::string&)> warn;
  };
  // Listens when it returns, also on the port of an NBD server that is there already. Throws SetupError.
  Forwards(const ReceiveOptions& options, const ForwardPlan& plan, const Surroundings& surroundings);
  // Whatever is under way is reset.
  ~Forwards();
  Forwards(const Forwards&) = delete;
  Forwards& operator=(const Forwards&) = delete;

  // Takes what has come. Waits for nothing.
  void look();
  // The session is over. completed: connections that have bytes under way get some time for them.
  void finish(bool completed, const SignalWatch& signals);

 private:
  struct Port {
    uint16_t number = 0;
    SocketAddress server;
    uint64_t inode = 0;  // of the server that was found; 0: --forward
    std::unique_ptr<OpenPort> open;
  };
  struct Active {
    uint16_t port = 0;
    std::string server;
    std::string peer;
    uint64_t since_ns = 0;
  };

  void listen(uint16_t number, const SocketAddress& server, uint64_t inode);
  void on_found(const PortListener& listener);
  void admit(const Port& port, Handoff& connection);
  void on_ended(const ForwardThread::Ended& ended);
  void give_back(Handoff& connection);
  void warn_once(const std::string& text);

  const ReceiveOptions& options_;
  const Surroundings at_;
  SourceNat nat_;
  SocketAddress handoff_;
  std::vector<Port> ports_;
  std::map<Handoff*, Active> active_;
  IpAddress source_;  // of those connections
  std::set<std::string> warned_;
  std::unique_ptr<ForwardThread> thread_;  // null: nothing is forwarded, nor looked for
};

}  // namespace migrx

// A receiver has to tell the peers of connections that are over. Connections of predecessors on the same port
// or address are reset beside the receiver's own session; its own connections are reset at the end, for a
// moment. The process that stays (linger.h) resets what is left then.
#pragma once

#include <memory>

#include "dataplane/reset_mode.h"
#include "loader/app/live_connections.h"
#include "loader/app/lost_record.h"

namespace migrx {

class Network;
class Session;
class SignalWatch;
class Terminal;
struct ReceiveOptions;

// Takes over from earlier processes that hold these ports or addresses, before they are opened. A folder that
// cannot be used is a warning. Throws SetupError.
void inherit_from_predecessors(const ReceiveOptions& options, LiveConnections& live, Terminal& terminal);

// Starts the process that stays and resets the rest; the ports must be free. killed: the receiver may have
// had more connections than these. Returns a sentence for the operator.
[[nodiscard]] std::string leave_behind(const ReceiveOptions& options, std::vector<LostConnection> lost,
                                       bool killed);

// Control thread.
class ResetDuty {
 public:
  ResetDuty(const ReceiveOptions& options, Network& network, LiveConnections& live);

  // The poll cores run: the peers of inherited connections are told from now on.
  void start();
  // Call now and then: tells the parent which connections have ended.
  void look();
  // The session is over. No new connection is taken; returns when FINs and resets have reached everybody, or
  // after a second. completed: the source knows.
  void finish(const Session& session, bool completed, const SignalWatch& signals);

 private:
  void begin(LiveConnections::List list, bool refuses_all);

  const ReceiveOptions& options_;
  Network& network_;
  LiveConnections& live_;
  LiveConnections::List list_;
  std::shared_ptr<ResetBoard> board_;
};

}  // namespace migrx

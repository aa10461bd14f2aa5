// What a receiver owes to peers of connections that are over: to tell them. Its predecessors' on the same
// port or address beside its own session; its own at the end, for a moment. Who is left is for the process
// that stays behind (linger.h).
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

// Takes over from whoever is in the way of these ports and addresses, before they are opened. A folder that
// cannot be used is a warning. Throws SetupError.
void inherit_from_predecessors(const ReceiveOptions& options, LiveConnections& live, Terminal& terminal);

// Has somebody stay behind for the rest; the ports must be free. killed: there may be more of them. A
// sentence for the operator.
[[nodiscard]] std::string leave_behind(const ReceiveOptions& options, std::vector<LostConnection> lost,
                                       bool killed);

// Control thread.
class ResetDuty {
 public:
  ResetDuty(const ReceiveOptions& options, Network& network, LiveConnections& live);

  // The poll cores run: those inherited are told from now on.
  void start();
  // Now and then: the parent is told who needs nobody any more.
  void look();
  // The session is over. Nobody new is listened to; returns when FINs and resets have reached everybody, or
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

// A receiver has to tell the peers of connections that are over. Connections of predecessors on the same port
// or address are reset beside the receiver's own session; its own connections are reset at the end, for a
// moment. The process that stays (linger.h) resets what is left then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/reset_mode.h"
#include "loader/app/live_connections.h"
#include "loader/app/lost_record.h"
#include "loader/app/supervisor.h"

namespace migrx {

class Network;
class Session;
class SignalWatch;
class Terminal;
struct HostOptions;

// Takes over from earlier processes that hold these ports or addresses, before they are opened. A folder that
// cannot be used is a warning. Throws SetupError.
// runtime_dir: of --runtime-dir; empty: default_runtime_folder().
void inherit_from_predecessors(const HostOptions& options, const std::string& runtime_dir,
                               LiveConnections& live, Terminal& terminal);

// Starts the process that stays and resets the rest; the ports must be free. killed: the receiver may have
// had more connections than these. Returns a sentence for the operator.
[[nodiscard]] std::string leave_behind(const HostOptions& options, const std::string& runtime_dir,
                                       std::vector<LostConnection> lost, bool killed);

// The same for what a child that has ended left to its supervisor.
[[nodiscard]] std::string leave_behind(const HostOptions& options, const std::string& runtime_dir,
                                       const Supervision::Legacy& legacy);

// Control thread.
class ResetDuty {
 public:
  // patience_ns: how long a peer that does not answer is asked; after that nobody is told of it any more.
  ResetDuty(Network& network, LiveConnections& live, uint64_t patience_ns);

  // The poll cores run: the peers of inherited connections are told from now on.
  void start();
  // Call now and then: tells the parent which connections have ended.
  void look();
  // The session is over, and its workers have let go of its connections. completed: the source knows. Peers
  // that may not know are told from now on, beside everything else. False: some may not.
  bool part(const Session& session, bool completed);
  // The session is over, and so is the process. No new connection is taken; returns when FINs and resets have
  // reached everybody, or after a second.
  void finish(const Session& session, bool completed, const SignalWatch& signals);
  // Connections whose peers are being told.
  [[nodiscard]] std::size_t waiting() const noexcept;

 private:
  struct Duty {
    std::vector<uint32_t> places;
    std::shared_ptr<ResetBoard> board;
    uint64_t since_ns = 0;
  };
  void begin(LiveConnections::List list, bool refuses_all);

  Network& network_;
  LiveConnections& live_;
  const uint64_t patience_ns_;
  std::vector<Duty> duties_;
};

}  // namespace migrx

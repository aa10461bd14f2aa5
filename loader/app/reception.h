// One migration: where the guest goes, the session and its control, COLO's secondary, and what a report says
// of them. A host has one Reception per migration; the guest's memory and TLS are given to it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "loader/app/arrivals.h"
#include "loader/app/colo_watch.h"
#include "loader/app/guest_blocks.h"
#include "loader/app/handoff_tls.h"
#include "loader/app/host.h"
#include "loader/app/live_connections.h"
#include "loader/app/open_port.h"
#include "loader/app/postcopy_duty.h"
#include "loader/app/progress.h"
#include "loader/app/report.h"
#include "loader/app/session_options.h"
#include "loader/app/terminal.h"
#include "loader/app/tls_setup.h"
#include "loader/colo/secondary.h"
#include "loader/session/destination.h"
#include "loader/session/session.h"
#include "loader/session/session_control.h"

namespace migrx {

// Control thread.
class Reception {
 public:
  // What it needs of the process; all outlive it.
  struct Surroundings {
    Host& host;
    GuestBlocks& guest;
    TlsSetup* tls;  // null: without TLS
    HandoffTls& handoff_tls;
    LiveConnections& live_connections;
    Arrivals& arrivals;
    CompressJobs& compress;
    uint64_t start_ns;  // zero of the report's time line
    bool alone = true;  // what the host does, it does for this migration
  };

  // The guest's memory is here and the destination waits; the source may connect from now on. addresses: see
  // make_destination(). Throws SetupError.
  Reception(const SessionOptions& options, SessionSettings settings,
            std::map<std::string, uint64_t> addresses, const Surroundings& surroundings);
  Reception(const Reception&) = delete;
  Reception& operator=(const Reception&) = delete;

  [[nodiscard]] SessionControl& control() noexcept { return *control_; }
  [[nodiscard]] const Session& session() const noexcept { return *session_; }
  [[nodiscard]] Destination& destination() noexcept { return *destination_; }
  // Where the guest would be if this process were killed now, as an exit status.
  [[nodiscard]] int status_if_killed() const noexcept;
  // Where the guest is, once control() is over: 0 here; 1 at the source; 3 ask the source; 4 the migration
  // broke in postcopy, and neither has all of it.
  [[nodiscard]] int exit_status() const noexcept;

  // What has happened since the last call, for the terminal; warnings go to the report as well.
  void tell(Terminal& terminal, Report& report);
  [[nodiscard]] ProgressSample sample(double now_s) const;
  // As things stand, while workers run.
  void report_now(Report& report) const;
  // It is over, and no worker serves it.
  void report_end(Report& report) const;
  // The session fails with this error, unless it is settled already.
  void fail(const StreamError& error) noexcept { session_->fail(error); }
  // The guest's memory is about to go. May block: see PostcopyDuty::let_go().
  void let_go_of_guest() { postcopy_.let_go(); }
  // Nobody connects any more.
  void close_port() noexcept { port_.reset(); }

 private:
  void report_parts(Report& report) const;

  const Surroundings at_;
  std::unique_ptr<OpenPort> port_;
  PostcopyDuty postcopy_;
  bool keeps_silent_ = false;
  std::unique_ptr<Destination> destination_;
  std::unique_ptr<ColoSecondary> colo_;  // null without the capability x-colo
  std::unique_ptr<Session> session_;
  std::unique_ptr<SessionControl> control_;
  ColoWatch colo_watch_;
};

}  // namespace migrx

// One migration of a daemon, from `session-add` to its report.
//
//   queued ──room──▶ preparing ──memory taken, destination armed──▶ running ──session over──▶ departing
//     │                  │                                                                         │
//     └──────────────────┴──────── refused, or cancelled ──────▶ finishing ◀───────────────────────┘
//                                                                     └──▶ over
//
// What may block (files, QMP, prefault, and giving memory back) is done by a thread of the job's own while it
// prepares and finishes, so that no job holds up another. Running and departing are the control thread's.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "loader/app/control_pace.h"
#include "loader/app/guest_blocks.h"
#include "loader/app/progress.h"
#include "loader/app/reception.h"
#include "loader/app/report.h"
#include "loader/app/reset_duty.h"
#include "loader/app/serve/budget.h"
#include "loader/app/serve/cancellation.h"
#include "loader/app/serve/client_sockets.h"
#include "loader/app/serve/job_terminal.h"
#include "loader/app/session_arguments.h"
#include "loader/app/signal_policy.h"
#include "loader/app/watch/metrics.h"
#include "loader/main/compress_jobs.h"
#include "numa/mapping_guard.h"

namespace migrx {

// Control thread, but for what the job's own thread does.
class Job {
 public:
  // What it needs of the daemon; all outlive it.
  struct Surroundings {
    Host& host;
    LiveConnections& live_connections;
    Arrivals& arrivals;
    ResetDuty& resets;
    const Lifeline& lifeline;
    const ClientFiles& client_files;
    MappingGuard& guard;
    // Something has happened that clients may want to know of: an event of docs/control.md and its data.
    std::function<void(const char*, const nlohmann::json&)> tell;
  };
  enum class State : uint8_t { queued, preparing, running, departing, finishing, over };

  // came: descriptors that came with the request. arguments.options.listen is the port. It is queued, and
  // nothing of the host is touched, until start().
  Job(std::string id, ControlPeer peer, SessionArguments arguments, std::vector<Descriptor> came,
      const Surroundings& surroundings);
  // Waits for its thread; a job that is not over is abandoned: for the end of the daemon.
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // There is room: begins to prepare.
  void start();
  // There is none yet: what clients are told meanwhile.
  void wait_for(const std::string& what) { terminal_.progress("waits for room: " + what); }
  // There will be none: it ends.
  void turn_away(const std::string& why) { fail(why); }

  // Returns work done; call until over().
  uint32_t do_work(uint64_t now_ns);
  // Microseconds until it should be looked at again, after a call that found `work`.
  [[nodiscard]] int pause_us(uint32_t work) noexcept;
  // As a signal to `migrx receive` (docs/signals.md).
  SignalAnswer signal(uint64_t now_ns);

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] bool queued() const noexcept { return state_ == State::queued; }
  [[nodiscard]] bool over() const noexcept { return state_ == State::over; }
  [[nodiscard]] const std::string& id() const noexcept { return id_; }
  [[nodiscard]] uint16_t port() const noexcept { return arguments_.options.listen; }
  // No source has connected.
  [[nodiscard]] bool unused() const noexcept;
  // The peer is root, or of the user who asked for it.
  [[nodiscard]] bool belongs_to(const ControlPeer& peer) const noexcept {
    return peer.uid == 0 || peer.uid == peer_.uid;
  }
  // What it may take in all.
  [[nodiscard]] Budget wanted() const noexcept;
  // What of it is promised and counted by nobody else; nothing while it is queued and once it is over.
  [[nodiscard]] Budget promised() const noexcept;
  [[nodiscard]] uid_t uid() const noexcept { return peer_.uid; }
  // As docs/control.schema.json has them: session-line and session.
  [[nodiscard]] nlohmann::json line() const;
  [[nodiscard]] nlohmann::json describe() const;
  // As the metrics have it, under way and afterwards.
  [[nodiscard]] SessionLook look() const;
  // The guest runs nowhere: what this thread does else would be downtime.
  [[nodiscard]] bool guest_stands_still() const noexcept;
  // Where the guest is, once over.
  [[nodiscard]] int exit_status() const noexcept { return exit_status_; }
  // What its terminal was told since the last call.
  [[nodiscard]] std::vector<JobTerminal::Line> take_lines() { return terminal_.take_lines(); }

 private:
  void prepare();  // its own thread
  void finish();   // its own thread
  void start_thread(void (Job::*body)());
  void begin_to_finish();
  void report_and_release();
  void join();
  void begin();
  void depart();
  [[nodiscard]] bool watch_memory();
  void look_at_memory();
  void forget_memory();
  void end();
  void fail(const std::string& why);
  uint32_t run(uint64_t now_ns);
  void tell_progress();
  [[nodiscard]] nlohmann::json figures() const;
  [[nodiscard]] const char* state_name() const noexcept;
  [[nodiscard]] double now_s() const;

  const std::string id_;
  const ControlPeer peer_;
  const Surroundings at_;
  uint64_t start_ns_;  // of its preparing
  SessionArguments arguments_;
  std::vector<Descriptor> came_;
  ClientSockets sockets_{peer_, at_.client_files};
  State state_ = State::queued;
  int exit_status_ = 2;  // where the guest is, once over
  JobTerminal terminal_;
  // Until it is over: a job that is kept to be asked about holds no descriptor.
  std::optional<Cancellation> cancellation_{std::in_place};
  SignalPolicy signal_policy_;
  ControlPace pace_;
  Progress progress_;
  SessionState told_state_ = SessionState::listening;
  uint64_t told_rounds_ = 0;
  double progress_s_ = 0;
  ProgressSample sample_;  // of that moment
  SessionLook last_look_;  // once it is finishing

  // The job's thread writes these while it runs; the control thread reads them after join().
  Report report_;
  std::string problem_;
  SessionSettings settings_;
  std::map<std::string, uint64_t> addresses_;
  std::unique_ptr<TlsSetup> tls_;
  std::unique_ptr<HandoffTls> handoff_tls_;
  std::unique_ptr<GuestBlocks> guest_;
  std::vector<MappingGuard::Place> watched_;  // of its mappings; control thread
  std::unique_ptr<CompressJobs> compress_;
  std::unique_ptr<Reception> reception_;
  std::string report_json_;  // once over
  std::string summary_;
  std::atomic<bool> thread_done_{false};
  std::thread thread_;
};

}  // namespace migrx

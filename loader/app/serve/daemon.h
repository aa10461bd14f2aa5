// What a daemon answers on its control socket: it takes migrations in, as far as its budgets reach, and tells
// of them. The jobs do the work.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/serve/budget.h"
#include "loader/app/serve/job.h"
#include "loader/app/serve/serve_options.h"
#include "loader/control/control_service.h"
#include "loader/destination/port_range.h"

namespace migrx {

// Control thread.
class Daemon final : public ControlService {
 public:
  // The options outlive it; so does what is in `surroundings`.
  Daemon(const ServeOptions& options, const Job::Surroundings& surroundings);
  ~Daemon() override;

  ControlAnswer execute(ControlRequest& request) override;

  // Begins the migration if this daemon has room for it and its options fit the host, or lets it wait for
  // room if its options say so: an object with its id and port, as session-add answers. The arguments have
  // been checked by themselves. came: descriptors that they name; taken unless it is refused.
  [[nodiscard]] ControlAnswer begin(const ControlPeer& peer, SessionArguments arguments,
                                    std::vector<Descriptor>& came);
  // Null: no job has that id, or it is long over.
  [[nodiscard]] Job* job(const std::string& id) noexcept;

  // Of all jobs. Returns work done.
  uint32_t do_work(uint64_t now_ns);
  // Microseconds until the next call is due at the latest.
  [[nodiscard]] int pause_us() const noexcept { return pause_us_; }

  // SIGTERM, or quit: no migration is taken in any more, and those that wait for room are turned away.
  void drain() noexcept { draining_ = true; }
  [[nodiscard]] bool draining() const noexcept { return draining_; }
  // As a signal to each of them.
  void signal_all(uint64_t now_ns);
  // Jobs that are not over.
  [[nodiscard]] uint32_t under_way() const noexcept;
  [[nodiscard]] DaemonNumbers numbers() const;
  // The migrations that are not over and the last that are, as the metrics have them, in the order they came.
  [[nodiscard]] std::vector<SessionLook> looks() const;
  // The guest of one of them runs nowhere now.
  [[nodiscard]] bool guest_stands_still() const noexcept;
  // Lines of the jobs for the daemon's own terminal, each with its session's id before it.
  [[nodiscard]] std::vector<JobTerminal::Line> take_lines();

 private:
  // Jobs that are over and may still be asked about; the oldest go.
  static constexpr std::size_t kKeptMax = 256;
  // Of those, the last ones have metrics.
  static constexpr std::size_t kLookedAtMax = 16;

  ControlAnswer session_add(ControlRequest& request);
  ControlAnswer session_cancel(const ControlRequest& request);
  ControlAnswer query_sessions(const ControlRequest& request) const;
  ControlAnswer query_session(const ControlRequest& request);
  ControlAnswer query_host(const ControlRequest& request) const;
  ControlAnswer query_version(const ControlRequest& request) const;
  ControlAnswer quit(const ControlRequest& request);

  [[nodiscard]] ControlAnswer admit(const ControlPeer& peer, SessionArguments arguments,
                                    std::vector<Descriptor>& came);
  void count_end(int exit_status) noexcept;
  void let_in();
  // Chooses the port when none is asked for. The error: the peer may not have that one, or none is free.
  [[nodiscard]] std::optional<ControlError> settle_port(const ControlPeer& peer,
                                                        SessionArguments& arguments) const;
  [[nodiscard]] WaitingLine waiting(const ControlPeer& peer) const;
  [[nodiscard]] Budget whole() const;
  [[nodiscard]] Budget promised() const;
  // A migration that has begun has that port.
  [[nodiscard]] bool port_in_use(uint16_t port) const;
  [[nodiscard]] std::string port_busy(uint16_t port) const;  // empty: it is not in use
  [[nodiscard]] uint16_t free_port() const;                  // of the range; 0: none
  // The job that the arguments name, if it is the peer's; otherwise `error`.
  Job* find(const ControlRequest& request, ControlError& error);

  const ServeOptions& options_;
  const Job::Surroundings at_;
  const std::vector<std::string> allow_;
  PortRange range_;
  std::vector<std::unique_ptr<Job>> jobs_;  // in the order they came
  uint64_t last_id_ = 0;
  DaemonNumbers ended_;  // what became of migrations; the rest of it is filled by numbers()
  bool draining_ = false;
  int pause_us_ = 0;
};

}  // namespace migrx

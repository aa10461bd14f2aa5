// What a process has longer than a migration: ports with their poll cores, loader workers, and the threads
// that run both.
//
//   Host (ports are set up) ─open()─▶ addresses are being claimed ─run()─▶ threads run ─▶ stopped
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/agent_thread.h"
#include "loader/app/address_claim.h"
#include "loader/app/host_options.h"
#include "loader/app/network.h"
#include "loader/app/progress.h"
#include "loader/app/report.h"
#include "loader/app/workers.h"
#include "numa/placement.h"

namespace migrx {

// Control thread.
class Host {
 public:
  // Everything up to ports that are ready to start. The options and the placement outlive it. connections:
  // that may be open at a time; channels_max: that a worker may serve; runtime_folder: see Network. Throws
  // SetupError, DpdkError.
  Host(const HostOptions& options, const Placement& placement, uint32_t connections, uint32_t channels_max,
       const std::string& runtime_folder);
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // Frames arrive from now on, and the ports' addresses are claimed while the caller does other things.
  // probe: another host may have the addresses; false when they are ours already.
  void open(bool probe);

  // While it lives, poll cores and workers run. What they work for must outlive it.
  class Running {
   public:
    explicit Running(Host& host) noexcept : host_(host) {}
    ~Running() { host_.stop(); }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    Host& host_;
  };
  // Waits until the addresses are claimed and starts the threads; the calling thread is bound to the control
  // thread's CPU, where the placement has one. Throws SetupError: see AddressClaim::finish().
  [[nodiscard]] Running run(const SignalWatch& signals, Terminal& terminal);
  // Nothing runs when it returns. May be repeated.
  void stop() noexcept;

  [[nodiscard]] Network& network() noexcept { return network_; }
  [[nodiscard]] Workers& workers() noexcept { return workers_; }
  [[nodiscard]] const Placement& placement() const noexcept { return placement_; }

  // Turns of each thread so far: one that stands still shows by them.
  [[nodiscard]] std::vector<uint64_t> turns() const;
  // Adds how much of the polling threads' time found something to do.
  void sample(ProgressSample& sample) const;
  // Threads, poll cores, ports and pools, while they run, too.
  void report(Report& report) const;

 private:
  const HostOptions& options_;
  const Placement& placement_;
  Network network_;
  Workers workers_;
  std::vector<std::unique_ptr<AgentThread>> threads_;  // in the placement's order
  std::optional<AddressClaim> claim_;
};

}  // namespace migrx

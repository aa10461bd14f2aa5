// The command line of `migrx receive`, checked for sense but not yet against this host.
#pragma once

#include <string>

#include "loader/app/core_options.h"
#include "loader/app/host_options.h"
#include "loader/app/job_options.h"
#include "loader/app/stream_options.h"

namespace migrx {

struct ReceiveOptions : HostOptions, StreamOptions, JobOptions, CoreOptions {
  // Limits in seconds; 0: none.
  double identify_timeout_s = 30;
  double channels_timeout_s = 75;
  double stall_timeout_s = 60;
  double destination_timeout_s = 300;
  double peer_timeout_s = 960;  // TcpConfig::give_up_ns says why
  double linger_s = 1200;       // 0: no process stays

  // Reporting.
  int ready_fd = -1;
  bool telemetry = false;
  bool supervise = true;
};

// Adds the options to a subcommand; values appear in `options` when the command line has been parsed.
void add_receive_options(CLI::App& command, ReceiveOptions& options);

// Options that contradict each other. Empty: none. The text says what to change.
[[nodiscard]] std::string check_receive_options(const ReceiveOptions& options);

}  // namespace migrx

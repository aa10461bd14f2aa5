// The command line of `migrx receive`, checked for sense but not yet against this host.
#pragma once

#include <string>

#include "loader/app/core_options.h"
#include "loader/app/forward_options.h"
#include "loader/app/host_options.h"
#include "loader/app/session_options.h"

namespace migrx {

struct ReceiveOptions : HostOptions, SessionOptions, CoreOptions, ForwardOptions {
  // Reporting.
  int ready_fd = -1;
  bool supervise = true;
  bool wait = false;  // for room at a daemon
};

// Adds the options to a subcommand; values appear in `options` when the command line has been parsed.
void add_receive_options(CLI::App& command, ReceiveOptions& options);

// Options that contradict each other. Empty: none. The text says what to change.
[[nodiscard]] std::string check_receive_options(const ReceiveOptions& options);

}  // namespace migrx

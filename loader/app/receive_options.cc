#include "loader/app/receive_options.h"

#include <CLI/CLI.hpp>

#include "loader/app/destinations.h"

namespace migrx {

void add_receive_options(CLI::App& command, ReceiveOptions& o) {
  add_host_options(command, o);
  add_stream_options(command, o);
  add_job_options(command, o);

  add_core_options(command, o, "Placement");

  const char* const limits = "Limits";
  const CLI::Range seconds(0.0, 1e6);
  command
      .add_option("--identify-timeout", o.identify_timeout_s,
                  "seconds that a new connection may take to say which channel it is (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--channels-timeout", o.channels_timeout_s,
                  "seconds between the first channel and the last (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option(
          "--stall-timeout", o.stall_timeout_s,
          "seconds without any byte moving before the migration fails: while channels wait for each other or "
          "for the destination, before the source's first page, or inside the device state (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--destination-timeout", o.destination_timeout_s,
                  "seconds after the last byte of device state in which the destination must say that it has "
                  "the guest (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);

  command
      .add_option("--peer-timeout", o.peer_timeout_s,
                  "seconds of silence after which a source's connection is given up; the default is as long "
                  "as a Linux source's TCP waits (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--linger", o.linger_s,
                  "once migrx has given up: seconds that a small process stays to reset connections whose "
                  "source could not be told (0: no such process, and that source's guest may stand still)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--runtime-dir", o.runtime_dir,
                  "folder in which the process of --linger announces itself and a new receive finds it "
                  "(default: /run/migrx, or migrx in $XDG_RUNTIME_DIR)")
      ->group(limits);

  const char* const reporting = "Reporting";
  command
      .add_option("--ready-fd", o.ready_fd, "file descriptor that gets one line when the source may connect")
      ->group(reporting);
  command
      .add_flag(
          "--telemetry", o.telemetry,
          "answer dpdk-telemetry.py: DPDK's own commands, and sessions, cores, tcp and pools below /migrx/")
      ->group(reporting);
  command
      .add_flag("!--no-supervisor", o.supervise,
                "run without the parent process that frees the source when this "
                "process is killed")
      ->group(reporting);
  one_word_each(command);
}

std::string check_receive_options(const ReceiveOptions& o) {
  if (std::string problem = check_host_options(o); !problem.empty()) return problem;
  if (std::string problem = check_destination_options(o.handoff, o.no_handoff, o.qmp); !problem.empty())
    return problem;
  return check_stream_options(o);
}

}  // namespace migrx

#include "loader/app/receive_options.h"

#include <CLI/CLI.hpp>

#include "loader/app/destinations.h"

namespace migrx {

void add_receive_options(CLI::App& command, ReceiveOptions& o) {
  add_host_options(command, o);
  add_tenant_options(command, o);
  add_stream_options(command, o);
  add_job_options(command, o);
  add_forward_options(command, o);

  add_core_options(command, o, "Placement");

  const char* const limits = "Limits";
  command
      .add_option("--runtime-dir", o.runtime_dir,
                  "folder in which the process of --linger announces itself and a new receive finds it "
                  "(default: /run/migrx, or migrx in $XDG_RUNTIME_DIR)")
      ->group(limits);

  const char* const reporting = "Reporting";
  command
      .add_option("--ready-fd", o.ready_fd, "file descriptor that gets one line when the source may connect")
      ->check(CLI::Range(0, INT32_MAX))
      ->group(reporting);
  command
      .add_flag("!--no-supervisor", o.supervise,
                "run without the parent process that frees the source when this "
                "process is killed")
      ->group(reporting);
  command
      .add_flag("--wait", o.wait,
                "with --via: when the daemon has no room, wait until other migrations have ended and those "
                "that asked earlier have begun")
      ->group("Daemon");
  one_word_each(command);
}

std::string check_receive_options(const ReceiveOptions& o) {
  if (o.wait) return "--wait: room is a daemon's to give: name its socket by --via, or leave --wait out";
  if (std::string problem = check_host_options(o, o); !problem.empty()) return problem;
  if (std::string problem = check_destination_options(o); !problem.empty()) return problem;
  if (o.expect_postcopy && !o.handoff)
    return "--expect-postcopy needs --handoff: without a destination QEMU a source with postcopy-ram is "
           "refused";
  ForwardPlan forwards;
  if (std::string problem = plan_forwards(o, o, o, forwards); !problem.empty()) return problem;
  return check_stream_options(o);
}

}  // namespace migrx

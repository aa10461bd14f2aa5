// The migrx program: one subcommand per job.
#include <CLI/CLI.hpp>

#include "dataplane/dpdk/tap.h"
#include "loader/app/doctor_command.h"
#include "loader/app/generate_command.h"
#include "loader/app/inherited_descriptors.h"
#include "loader/app/linger.h"
#include "loader/app/load_command.h"
#include "loader/app/plan_command.h"
#include "loader/app/receive_command.h"
#include "loader/app/serve/serve_command.h"
#include "loader/app/session_commands.h"

int main(int argc, char** argv) {
  migrx::hold_standard_descriptors();
  migrx::block_tap_signals();  // before any thread is made
  CLI::App app("Receives live migrations of QEMU guests by kernel bypass.", "migrx");
  app.set_version_flag("--version", std::string("migrx ") + MIGRX_VERSION);
  app.require_subcommand(1);
  int exit_status = 0;
  migrx::add_receive_command(app, exit_status);
  migrx::add_serve_command(app, exit_status);
  migrx::add_list_command(app, exit_status);
  migrx::add_cancel_command(app, exit_status);
  migrx::add_load_command(app, exit_status);
  migrx::add_linger_command(app, exit_status);
  migrx::add_generate_command(app, exit_status);
  migrx::add_plan_command(app, exit_status);
  migrx::add_doctor_command(app, exit_status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // 0 for --help and --version, 2 for wrong usage.
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_status;
}

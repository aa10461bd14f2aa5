#include "loader/app/command_line.h"

#include <CLI/CLI.hpp>

#include "loader/app/doctor_command.h"
#include "loader/app/generate_command.h"
#include "loader/app/linger_command.h"
#include "loader/app/load_command.h"
#include "loader/app/plan_command.h"
#include "loader/app/receive_command.h"
#include "loader/app/serve/serve_command.h"
#include "loader/app/session_commands.h"
#include "loader/app/top_command.h"

namespace migrx {

int run_command_line(int argc, char** argv) {
  CLI::App app("Receives live migrations of QEMU guests by kernel bypass.", "migrx");
  app.set_version_flag("--version", std::string("migrx ") + MIGRX_VERSION);
  app.require_subcommand(1);
  int exit_status = 0;
  add_receive_command(app, exit_status);
  add_serve_command(app, exit_status);
  add_list_command(app, exit_status);
  add_cancel_command(app, exit_status);
  add_top_command(app, exit_status);
  add_load_command(app, exit_status);
  add_linger_command(app, exit_status);
  add_generate_command(app, exit_status);
  add_plan_command(app, exit_status);
  add_doctor_command(app, exit_status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // 0 for --help and --version, 2 for wrong usage.
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_status;
}

}  // namespace migrx

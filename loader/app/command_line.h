// The command line of migrx: one subcommand per job.
#pragma once

namespace migrx {

// Runs the subcommand that it names. The exit status of the program: the subcommand's, or 2 for wrong usage.
[[nodiscard]] int run_command_line(int argc, char** argv);

}  // namespace migrx

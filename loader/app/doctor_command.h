// `migrx doctor`: is this host ready to receive?
#pragma once

namespace CLI {
class App;
}

namespace migrx {

// Adds the subcommand; its exit status is 0: ready, 1: not ready, 2: wrong usage.
void add_doctor_command(CLI::App& app, int& exit_status);

}  // namespace migrx

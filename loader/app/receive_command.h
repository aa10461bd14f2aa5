// `migrx receive`: one incoming migration.
#pragma once

namespace CLI {
class App;
}

namespace migrx {

// Adds the subcommand; when it was chosen, its exit status is stored: 0 complete, 1 the migration failed, 2
// wrong usage or host not ready.
void add_receive_command(CLI::App& app, int& exit_status);

}  // namespace migrx

// `migrx load`: a migration stream or mapped-ram snapshot from a file.
#pragma once

namespace CLI {
class App;
}

namespace migrx {

// Adds the subcommand; exit statuses as for `migrx receive`.
void add_load_command(CLI::App& app, int& exit_status);

}  // namespace migrx

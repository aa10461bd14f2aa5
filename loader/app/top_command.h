// `migrx top`: watches a daemon, as top(1) watches a host.
#pragma once

namespace CLI {
class App;
}

namespace migrx {

// Adds the subcommand; when it was chosen, its exit status is stored: 0; 1: the daemon ended meanwhile; 2: no
// daemon could be asked.
void add_top_command(CLI::App& app, int& exit_status);

}  // namespace migrx

// `migrx generate`: sends a made-up guest over a DPDK port, to measure a receiver and the way to it.
#pragma once

namespace CLI {
class App;
}

namespace migrx {

// Adds the subcommand. Exit status: 0 the receiver has loaded all of RAM, 1 it has not, 2 wrong usage or host
// not ready.
void add_generate_command(CLI::App& app, int& exit_status);

}  // namespace migrx

// `migrx plan`: which core would do what, and why.
#pragma once

namespace CLI {
class App;
}

namespace migrx {

// Adds the subcommand; its exit status is 2 when the wish cannot be met.
void add_plan_command(CLI::App& app, int& exit_status);

}  // namespace migrx

// `migrx linger`: the process that stays after a receiver that gave up (linger.h).
#pragma once

namespace CLI {
class App;
}

namespace migrx {

void add_linger_command(CLI::App& app, int& exit_status);

}  // namespace migrx

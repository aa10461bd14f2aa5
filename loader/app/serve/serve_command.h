// `migrx serve`.
#pragma once

namespace CLI {
class App;
}

namespace migrx {

void add_serve_command(CLI::App& app, int& exit_status);

}  // namespace migrx

// `migrx list` and `migrx cancel`: the migrations that a daemon receives.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace CLI {
class App;
}

namespace migrx {

// Where a daemon listens unless it is told otherwise.
inline constexpr const char* kControlSocketPath = "/run/migrx/control";

// Adds the subcommand; when it was chosen, its exit status is stored: 0; 1 of `cancel`: the daemon refused;
// 2: no daemon could be asked.
void add_list_command(CLI::App& app, int& exit_status);
void add_cancel_command(CLI::App& app, int& exit_status);

// --via of a command that asks a daemon.
void add_socket_option(CLI::App& command, std::string& socket);

// The answer to query-sessions for people: one line each, below a heading.
[[nodiscard]] std::string session_table(const nlohmann::json& sessions);

}  // namespace migrx

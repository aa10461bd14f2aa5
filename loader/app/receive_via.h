// `migrx receive --via SOCKET`: the same command, the receiving done by a daemon.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "loader/app/receive_options.h"

namespace CLI {
class App;
}

namespace migrx {

// Adds --via to `receive`, whose options are there already. With it, --port and --address are not needed.
// socket: gets its value, and outlives the parsing.
void add_via_option(CLI::App& receive, std::string& socket);

// Asks the daemon at `socket` for what stood on the command line of `receive`, shows how it goes, and returns
// the exit status. Blocks signals; to be called with one thread.
[[nodiscard]] int receive_via(const std::string& socket, const CLI::App& receive,
                              const ReceiveOptions& options);

}  // namespace migrx

// A connection as one line of text: what the receiver tells its parent about it (supervisor.h).
#pragma once

#include <optional>
#include <string>

#include "dataplane/reset_mode.h"

namespace migrx {

[[nodiscard]] std::string to_text(const LostConnection& connection);
// nullopt: not what to_text() gave.
[[nodiscard]] std::optional<LostConnection> lost_connection_from(const std::string& text);

}  // namespace migrx

// The lines that go out of a control socket. Each ends with its newline and has no other.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "loader/control/control_service.h"

namespace migrx {

// Of the lines' form and the commands' meaning (docs/control.schema.json). What is added leaves it as it is.
inline constexpr int kControlProtocol = 1;

// A request's "id"; nothing: it had none.
using ControlId = std::optional<nlohmann::json>;

// What a client reads first.
[[nodiscard]] std::string greeting_line(std::string_view version);
[[nodiscard]] std::string return_line(const nlohmann::json& value, const ControlId& id);
[[nodiscard]] std::string error_line(const ControlError& error, const ControlId& id);
[[nodiscard]] std::string answer_line(const ControlAnswer& answer, const ControlId& id);
// unix_us: microseconds since 1970.
[[nodiscard]] std::string event_line(std::string_view name, const nlohmann::json& data, uint64_t unix_us);

}  // namespace migrx

#include "loader/control/control_message.h"

#include <utility>

namespace migrx {
namespace {

using Json = nlohmann::json;

// Bytes that are no UTF-8, from a path say, are replaced: whoever reads must get JSON.
std::string line_of(const Json& message) {
  return message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string greeting_line(std::string_view version) {
  return line_of(
      {{"migrx", {{"version", version}, {"protocol", kControlProtocol}, {"capabilities", Json::array()}}}});
}

std::string return_line(const Json& value, const ControlId& id) {
  Json message = {{"return", value}};
  if (id) message["id"] = *id;
  return line_of(message);
}

std::string error_line(const ControlError& error, const ControlId& id) {
  Json message = {{"error", {{"class", error.error_class}, {"desc", error.sentence}}}};
  if (id) message["id"] = *id;
  return line_of(message);
}

std::string answer_line(const ControlAnswer& answer, const ControlId& id) {
  if (const auto* const error = std::get_if<ControlError>(&answer)) return error_line(*error, id);
  return return_line(std::get<Json>(answer), id);
}

std::string event_line(std::string_view name, const Json& data, uint64_t unix_us) {
  return line_of({{"event", name},
                  {"data", data},
                  {"timestamp", {{"seconds", unix_us / 1'000'000}, {"microseconds", unix_us % 1'000'000}}}});
}

}  // namespace migrx

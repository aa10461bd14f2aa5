#include "loader/destination/port_range.h"

#include <charconv>
#include <system_error>

namespace migrx {

bool parse_port(std::string_view text, uint16_t& out) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size() && out > 0;
}

bool parse_port_range(std::string_view text, PortRange& out) noexcept {
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos) return parse_port(text, out.first) && parse_port(text, out.last);
  return parse_port(text.substr(0, dash), out.first) && parse_port(text.substr(dash + 1), out.last) &&
         out.first <= out.last;
}

}  // namespace migrx

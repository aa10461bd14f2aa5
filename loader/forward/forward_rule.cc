#include "loader/forward/forward_rule.h"

#include <string_view>

#include "loader/destination/port_range.h"

namespace migrx {

std::string parse_forward_rule(const std::string& text, ForwardRule& out) {
  std::string expected = text +
                         ": expected PORT=ADDRESS:PORT with a numeric address, e.g. "
                         "10809=127.0.0.1:10809 or 10809=[::1]:10809";
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) return expected;
  if (!parse_port(std::string_view(text).substr(0, equals), out.port)) return expected;
  const bool known = parse_socket_address("tcp:" + text.substr(equals + 1), out.server).empty();
  return known ? std::string{} : expected;
}

}  // namespace migrx

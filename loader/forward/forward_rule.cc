#include "loader/forward/forward_rule.h"

#include <charconv>

namespace migrx {

std::string parse_forward_rule(const std::string& text, ForwardRule& out) {
  std::string expected = text +
                         ": expected PORT=ADDRESS:PORT with a numeric address, e.g. "
                         "10809=127.0.0.1:10809 or 10809=[::1]:10809";
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) return expected;
  const char* const last = text.data() + equals;
  const auto [end, error] = std::from_chars(text.data(), last, out.port);
  if (error != std::errc{} || end != last || out.port == 0) return expected;
  const bool known = parse_socket_address("tcp:" + text.substr(equals + 1), out.server).empty();
  return known ? std::string{} : expected;
}

}  // namespace migrx

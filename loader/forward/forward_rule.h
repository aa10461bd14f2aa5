// What --forward says: "10809=127.0.0.1:10809", who connects to that port of ours speaks to that server.
#pragma once

#include <cstdint>
#include <string>

#include "loader/destination/socket_address.h"

namespace migrx {

struct ForwardRule {
  uint16_t port = 0;     // of ours
  SocketAddress server;  // TCP
};

// Empty: `out` is filled. Otherwise what is wrong and what is expected, without the option's name. Pure.
[[nodiscard]] std::string parse_forward_rule(const std::string& text, ForwardRule& out);

}  // namespace migrx

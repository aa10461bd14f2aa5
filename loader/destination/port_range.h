// TCP ports as an operator writes them.
#pragma once

#include <cstdint>
#include <string_view>

namespace migrx {

// Those that libvirt gives to migrations by default.
struct PortRange {
  uint16_t first = 49152;
  uint16_t last = 49215;
};

// "4444", and nothing else. False: it is none, or 0.
[[nodiscard]] bool parse_port(std::string_view text, uint16_t& out) noexcept;
// "49152-49215", or one port. False: it is neither.
[[nodiscard]] bool parse_port_range(std::string_view text, PortRange& out) noexcept;

}  // namespace migrx

#include "loader/main/machine_type.h"

#include <charconv>

namespace migrx {
namespace {

constexpr MachineVersion kAcksByDevice{11, 1};

// All of `text` is a number.
bool read_number(std::string_view text, uint32_t& value) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

std::optional<MachineVersion> version_of_machine_type(std::string_view machine) noexcept {
  const std::size_t dash = machine.rfind('-');
  if (dash == std::string_view::npos || dash == 0) return std::nullopt;
  const std::string_view release = machine.substr(dash + 1);
  const std::size_t dot = release.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  MachineVersion version;
  if (!read_number(release.substr(0, dot), version.major) ||
      !read_number(release.substr(dot + 1), version.minor))
    return std::nullopt;
  return version;
}

std::optional<bool> switchover_ack_is_legacy(std::string_view machine) noexcept {
  const std::optional<MachineVersion> version = version_of_machine_type(machine);
  if (!version) return std::nullopt;
  return *version < kAcksByDevice;
}

}  // namespace migrx

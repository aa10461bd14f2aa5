// The QEMU release that a machine type belongs to, from its name.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace migrx {

struct MachineVersion {
  uint32_t major = 0;
  uint32_t minor = 0;

  [[nodiscard]] friend constexpr bool operator<(const MachineVersion& a, const MachineVersion& b) noexcept {
    return a.major != b.major ? a.major < b.major : a.minor < b.minor;
  }
};

// {11, 1} of "pc-q35-11.1". Nothing for a type without a release in its name ("microvm", "vexpress-a9"), and
// for those of distributions that count in their own way ("pc-q35-rhel9.6.0", "pc-i440fx-noble"). Pure; the
// name may be a stranger's.
[[nodiscard]] std::optional<MachineVersion> version_of_machine_type(std::string_view machine) noexcept;

// QEMU's property `switchover-ack-legacy` of the migration object: on for machine types up to 11.0. On, a
// source with the capability switchover-ack waits for one SWITCHOVER_ACK, whatever its devices are; off, for
// one from each device that asks for it, and one too many ends its return path ("Switchover ack pending num
// underflowed"), after which its migration never finishes. Nothing: the name does not tell.
[[nodiscard]] std::optional<bool> switchover_ack_is_legacy(std::string_view machine) noexcept;

}  // namespace migrx

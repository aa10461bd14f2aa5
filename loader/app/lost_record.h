// The record that a receiver leaves when it gives up: the connections whose peers have not been told, and the
// ports and addresses by which those peers are reached. The process that stays (linger.h), or the next
// receiver, goes on from it. A text, so that it can be kept in a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/reset_mode.h"

namespace migrx {

// Where a record was made: one of another boot says nothing, one of another network namespace means another
// link, though names and addresses be the same.
struct HostIdentity {
  std::string boot_id;
  std::string network_namespace;  // device and inode of /proc/self/ns/net
  friend bool operator==(const HostIdentity&, const HostIdentity&) = default;
};
[[nodiscard]] HostIdentity this_host();
// CLOCK_BOOTTIME, in ns: it goes on while the host sleeps, and begins anew with each boot.
[[nodiscard]] uint64_t boottime_ns() noexcept;

struct LostRecord {
  HostIdentity host;
  int64_t process = 0;                 // who made it
  uint64_t until_ns = 0;               // CLOCK_BOOTTIME: after that no process resets them any more
  std::vector<std::string> ports;      // DPDK devargs
  std::vector<std::string> addresses;  // "10.77.0.2/24,fd00::2/64", one per port
  std::optional<std::string> gateway;
  std::optional<uint16_t> vlan;
  uint32_t mtu = 1500;
  std::string eal;
  std::vector<LostConnection> lost;
  // The receiver was killed: a connection of its last moment may be missing above.
  bool killed = false;
};

// Bounds of what is read: a file in a folder that only we may write, but a file.
inline constexpr std::size_t kLostRecordBytesMax = 1 << 20;
inline constexpr std::size_t kLostConnectionsMax = 8192;

[[nodiscard]] std::string to_text(const LostRecord& record);
// nullopt: not what to_text() gave, or cut short.
[[nodiscard]] std::optional<LostRecord> lost_record_from(std::string_view text);

// Both want the same port, or the same address on the same network: a PCI function is the host's, everything
// else belongs to a network namespace.
[[nodiscard]] bool in_the_way(const LostRecord& record, const LostRecord& ours);

}  // namespace migrx

// Whether somebody else has an IPv4 address already, before we use it (RFC 5227 section 2.1). Sans-IO.
#pragma once

#include <cstdint>
#include <optional>

#include "dataplane/wire/arp.h"

namespace migrx {

// Asks kProbes times for the address without naming it as ours. Departure: RFC 5227 section 1.1 has one to
// two seconds between probes and two after them, for laptops that move between networks. A host on the link
// of a server answers within microseconds, and a source that waits for us is not to wait for seven seconds.
class AddressProbe {
 public:
  static constexpr uint32_t kProbes = 3;
  static constexpr uint64_t kIntervalNs = 100'000'000;  // and as long after the last one

  // vlan: of the frames; nothing: untagged ones, and words in any VLAN count.
  AddressProbe(EthernetAddress mac, Ipv4Address ip, std::optional<uint16_t> vlan) noexcept;

  // The next question, when it is time.
  [[nodiscard]] std::optional<ArpPacket> poll_output(uint64_t now_ns) noexcept;
  // Whoever says that it has the address, or probes for it just as we do, has it.
  void on_arp(const ArpPacket& heard) noexcept;
  // Somebody has it, or nobody has answered.
  [[nodiscard]] bool over(uint64_t now_ns) const noexcept;
  [[nodiscard]] const std::optional<EthernetAddress>& other() const noexcept { return other_; }

 private:
  const EthernetAddress mac_;
  const Ipv4Address ip_;
  const std::optional<uint16_t> vlan_;
  uint32_t sent_ = 0;
  uint64_t next_ns_ = 0;
  std::optional<EthernetAddress> other_;
};

}  // namespace migrx

// Asks, before a port uses an address, whether another host has that address already (RFC 5227 section 2.1;
// RFC 4862 section 5.4). Sans-IO.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include "dataplane/wire/arp.h"
#include "dataplane/wire/ndp.h"

namespace migrx {

// Asks kProbes times for the address without naming it as ours. Departure: RFC 5227 section 1.1 has one to
// two seconds between probes and two after them, for laptops that move between networks, and RFC 4862 has one
// question and a second's wait. A host on the link of a server answers within microseconds, and a source that
// waits for us is not to wait for seven seconds.
class AddressProbe {
 public:
  static constexpr uint32_t kProbes = 3;
  static constexpr uint64_t kIntervalNs = 100'000'000;  // and as long after the last one
  using Question = std::variant<ArpPacket, NdpPacket>;

  // vlan: of the frames; nothing: untagged ones, and words in any VLAN count.
  AddressProbe(EthernetAddress mac, const IpAddress& ip, std::optional<uint16_t> vlan) noexcept;

  // The next question, when it is time.
  [[nodiscard]] std::optional<Question> poll_output(uint64_t now_ns) noexcept;
  // Whoever says that it has the address, or probes for it just as we do, has it.
  void on_arp(const ArpPacket& heard) noexcept;
  void on_ndp(const NdpPacket& heard) noexcept;
  // Somebody has it, or nobody has answered.
  [[nodiscard]] bool over(uint64_t now_ns) const noexcept;
  [[nodiscard]] const std::optional<EthernetAddress>& other() const noexcept { return other_; }

 private:
  [[nodiscard]] bool on_our_vlan(const FrameAddress& link) const noexcept;

  const EthernetAddress mac_;
  const IpAddress ip_;
  const std::optional<uint16_t> vlan_;
  uint32_t sent_ = 0;
  uint64_t next_ns_ = 0;
  std::optional<EthernetAddress> other_;
};

}  // namespace migrx

#include "dataplane/address_probe.h"

namespace migrx {

AddressProbe::AddressProbe(EthernetAddress mac, Ipv4Address ip, std::optional<uint16_t> vlan) noexcept
    : mac_(mac), ip_(ip), vlan_(vlan) {}

std::optional<ArpPacket> AddressProbe::poll_output(uint64_t now_ns) noexcept {
  if (sent_ == kProbes || other_ || now_ns < next_ns_) return std::nullopt;
  ++sent_;
  next_ns_ = now_ns + kIntervalNs;
  // A sender address of 0: nobody's cache is to learn anything from it (RFC 5227 section 2.1.1).
  ArpPacket probe = arp_request_for(mac_, Ipv4Address{0}, ip_);
  if (vlan_) {
    probe.link.tagged = 1;
    probe.link.vlan_tci = *vlan_;
  }
  return probe;
}

void AddressProbe::on_arp(const ArpPacket& heard) noexcept {
  constexpr uint16_t kVlanIdMask = 0x0fff;
  if (other_ || heard.sender_mac == mac_) return;
  if (vlan_ && (heard.link.tagged == 0 || (heard.link.vlan_tci & kVlanIdMask) != *vlan_)) return;
  const bool has = heard.sender_ip == ip_;
  const bool probes = heard.sender_ip.value == 0 && heard.target_ip == ip_ &&
                      heard.operation == ArpPacket::Operation::request;
  if (has || probes) other_ = heard.sender_mac;
}

bool AddressProbe::over(uint64_t now_ns) const noexcept {
  return other_ || (sent_ == kProbes && now_ns >= next_ns_);
}

}  // namespace migrx

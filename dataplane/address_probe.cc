#include "dataplane/address_probe.h"

namespace migrx {

AddressProbe::AddressProbe(EthernetAddress mac, const IpAddress& ip, std::optional<uint16_t> vlan) noexcept
    : mac_(mac), ip_(ip), vlan_(vlan) {}

std::optional<AddressProbe::Question> AddressProbe::poll_output(uint64_t now_ns) noexcept {
  if (sent_ == kProbes || other_ || now_ns < next_ns_) return std::nullopt;
  ++sent_;
  next_ns_ = now_ns + kIntervalNs;
  const auto tag = [this](FrameAddress& link) {
    link.tagged = vlan_ ? 1 : 0;
    link.vlan_tci = vlan_.value_or(0);
  };
  // A sender address of 0: no host's cache is to learn anything from it (RFC 5227 section 2.1.1, RFC 4862
  // section 5.4.2).
  if (ip_.is_ipv4()) {
    ArpPacket probe = arp_request_for(mac_, Ipv4Address{0}, ip_.ipv4());
    tag(probe.link);
    return probe;
  }
  NdpPacket probe = ndp_solicitation_for(mac_, IpAddress{}, ip_);
  tag(probe.link);
  return probe;
}

bool AddressProbe::on_our_vlan(const FrameAddress& link) const noexcept {
  constexpr uint16_t kVlanIdMask = 0x0fff;
  return !vlan_ || (link.tagged != 0 && (link.vlan_tci & kVlanIdMask) == *vlan_);
}

void AddressProbe::on_arp(const ArpPacket& heard) noexcept {
  if (other_ || heard.sender_mac == mac_ || !on_our_vlan(heard.link)) return;
  const bool has = heard.sender_ip == ip_;
  const bool probes = heard.sender_ip.value == 0 && heard.target_ip == ip_ &&
                      heard.operation == ArpPacket::Operation::request;
  if (has || probes) other_ = heard.sender_mac;
}

void AddressProbe::on_ndp(const NdpPacket& heard) noexcept {
  // Our own question, sent back to us by the link, comes from our own address (RFC 7527 has more to say of
  // that).
  if (other_ || heard.link.remote_mac == mac_ || !on_our_vlan(heard.link)) return;
  const bool says = heard.kind == NdpPacket::Kind::advertisement || heard.source.is_unspecified();
  if ((says && heard.target == ip_) || heard.source == ip_) other_ = heard.link.remote_mac;
}

bool AddressProbe::over(uint64_t now_ns) const noexcept {
  return other_ || (sent_ == kProbes && now_ns >= next_ns_);
}

}  // namespace migrx

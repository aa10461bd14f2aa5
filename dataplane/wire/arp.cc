#include "dataplane/wire/arp.h"

#include <cstring>

#include "dataplane/wire/ethernet.h"

namespace migrx {
namespace {

// Hardware type 1 (Ethernet), protocol 0x0800, address lengths 6 and 4: the only form served.
constexpr uint64_t kFixedPart = 0x0001'0800'0604;
constexpr uint32_t kArpBytes = 28;

}  // namespace

bool parse_arp(Bytes frame, ArpPacket& out) noexcept {
  EthernetView ethernet;
  if (!parse_ethernet(frame, ethernet) || ethernet.type != ether_type::arp) return false;
  const Bytes arp = frame.subspan(ethernet.payload_offset);
  if (arp.size() < kArpBytes) return false;
  const std::byte* p = arp.data();
  if ((load_be64(p) >> 16) != kFixedPart) return false;
  const uint16_t operation = load_be16(p + 6);
  if (operation != 1 && operation != 2) return false;
  out.operation = static_cast<ArpPacket::Operation>(operation);
  std::memcpy(out.sender_mac.bytes.data(), p + 8, 6);
  out.sender_ip.value = load_be32(p + 14);
  std::memcpy(out.target_mac.bytes.data(), p + 18, 6);
  out.target_ip.value = load_be32(p + 24);
  out.link = ethernet.link;
  return true;
}

uint32_t build_arp(const ArpPacket& packet, MutableBytes out) noexcept {
  if (out.size() < kArpFrameBytesMax) return 0;
  const uint32_t offset = build_ethernet(packet.link, ether_type::arp, out);
  std::byte* p = out.data() + offset;
  store_be64(p, (kFixedPart << 16) | static_cast<uint16_t>(packet.operation));
  std::memcpy(p + 8, packet.sender_mac.bytes.data(), 6);
  store_be32(p + 14, packet.sender_ip.value);
  std::memcpy(p + 18, packet.target_mac.bytes.data(), 6);
  store_be32(p + 24, packet.target_ip.value);
  return offset + kArpBytes;
}

bool arp_reply_for(const ArpPacket& request, EthernetAddress mac, Ipv4Address ip, ArpPacket& reply) noexcept {
  if (request.operation != ArpPacket::Operation::request || request.target_ip != ip) return false;
  // A multicast sender address would turn the answer into a broadcast.
  if ((request.sender_mac.bytes[0] & std::byte{1}) != std::byte{0}) return false;
  reply.operation = ArpPacket::Operation::reply;
  reply.sender_mac = mac;
  reply.sender_ip = ip;
  reply.target_mac = request.sender_mac;
  reply.target_ip = request.sender_ip;
  reply.link = request.link;
  reply.link.remote_mac = request.sender_mac;
  reply.link.local_mac = mac;
  return true;
}

ArpPacket arp_request_for(EthernetAddress mac, Ipv4Address ip, Ipv4Address target_ip) noexcept {
  ArpPacket request;
  request.operation = ArpPacket::Operation::request;
  request.sender_mac = mac;
  request.sender_ip = ip;
  request.target_ip = target_ip;
  request.link.remote_mac = kEthernetBroadcast;
  request.link.local_mac = mac;
  return request;
}

}  // namespace migrx

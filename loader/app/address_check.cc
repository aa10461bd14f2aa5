#include "loader/app/address_check.h"

#include <fmt/format.h>

#include <vector>

#include "loader/app/network.h"

namespace migrx {
namespace {

// Bits of the host's part, all ones.
uint32_t host_bits(const Ipv4Network& network) {
  return network.prefix_length == 0
             ? UINT32_MAX
             : static_cast<uint32_t>((uint64_t{1} << (32 - network.prefix_length)) - 1);
}

// RFC 1122, 3.2.1.3: what no host may have as its own. Empty: it may.
std::string no_hosts_address(const Ipv4Network& network) {
  const uint32_t address = network.address.value;
  const uint32_t host = host_bits(network);
  if (address >> 28 >= 0xe) return "is a multicast or reserved address";
  if (address >> 24 == 127) return "is a loopback address, which no network carries";
  if (address >> 24 == 0) return "means this host or none";
  // A link of two hosts (RFC 3021) and a single address have neither.
  if (network.prefix_length >= 31) return {};
  if ((address & host) == 0) return "names the subnet itself";
  if ((address & host) == host) return "is the subnet's broadcast address";
  return {};
}

bool inside(const Ipv4Network& network, const Ipv4Network& host) {
  return ((network.address.value ^ host.address.value) & ~host_bits(network)) == 0;
}

}  // namespace

std::string check_addresses(const ReceiveOptions& options) {
  if (options.listen == 0) return "--listen 0: give the TCP port that the source is told, such as 4444";
  std::vector<Ipv4Network> subnets;
  for (const std::string& text : options.addresses) {
    Ipv4Network network;
    if (!parse_network(text, network))
      return fmt::format(
          "--address {}: expected an IPv4 address with its prefix length, such as 10.77.0.2/24", text);
    if (const std::string why = no_hosts_address(network); !why.empty())
      return fmt::format("--address {} {}: give the port an address of its own", text, why);
    for (const Ipv4Network& other : subnets)
      if (other.address == network.address) return fmt::format("--address {} is given to two ports", text);
    subnets.push_back(network);
  }
  if (options.gateway) {
    Ipv4Network gateway;
    if (!parse_network(*options.gateway + "/32", gateway))
      return fmt::format("--gateway {}: expected an IPv4 address, such as 10.77.0.1", *options.gateway);
    bool reached = false;
    for (const Ipv4Network& subnet : subnets) {
      if (subnet.address == gateway.address)
        return fmt::format("--gateway {} is the port's own address", *options.gateway);
      reached = reached || inside(subnet, gateway);
    }
    if (!reached)
      return fmt::format("--gateway {} is in the subnet of no --address: correct it, or the prefix length",
                         *options.gateway);
  }
  for (const std::string& text : options.allow) {
    Ipv4Network network;
    if (!parse_network(text, network))
      return fmt::format("--allow {}: expected a network such as 10.77.0.0/24", text);
  }
  return {};
}

}  // namespace migrx

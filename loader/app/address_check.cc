#include "loader/app/address_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "dataplane/wire/address_text.h"
#include "dataplane/wire/ipv6.h"
#include "loader/app/address_list.h"

namespace migrx {
namespace {

constexpr uint32_t kIpv6Bits = 128;

// RFC 1122, 3.2.1.3: what no host may have as its own. Empty: it may.
std::string no_hosts_ipv4(const IpNetwork& network) {
  const uint32_t address = network.address.ipv4().value;
  const uint32_t host = network.prefix_length == 0
                            ? UINT32_MAX
                            : static_cast<uint32_t>((uint64_t{1} << (32 - network.prefix_length)) - 1);
  if (address >> 28 >= 0xe) return "is a multicast or reserved address";
  if (address >> 24 == 127) return "is a loopback address, which no network carries";
  if (address >> 24 == 0) return "means this host or none";
  // A link of two hosts (RFC 3021) and a single address have neither.
  if (network.prefix_length >= 31) return {};
  if ((address & host) == 0) return "names the subnet itself";
  if ((address & host) == host) return "is the subnet's broadcast address";
  return {};
}

// RFC 4291 sections 2.5 to 2.7.
std::string no_hosts_ipv6(const IpNetwork& network) {
  const IpAddress& address = network.address;
  if (address.is_multicast()) return "is a multicast address";
  if (address.is_loopback()) return "is the loopback address, which no network carries";
  if (address.is_unspecified()) return "means no host";
  if (address.high == 0 && address.low >> 32 == 0)
    return "is an IPv4-compatible address, a form that is not used any more: write an IPv4 address as one";
  // A link of two hosts has none (RFC 6164).
  if (network.prefix_length >= kIpv6Bits - 1) return {};
  const uint32_t bits = kIpv6Bits - network.prefix_length;
  const uint64_t low = bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  const uint64_t high = bits >= 128 ? ~uint64_t{0} : bits > 64 ? (uint64_t{1} << (bits - 64)) - 1 : 0;
  if ((address.low & low) == 0 && (address.high & high) == 0)
    return "names the subnet itself (that address belongs to the subnet's routers)";
  return {};
}

std::string check_ports(const HostOptions& options, bool all_named, std::vector<IpNetwork>& networks) {
  for (const std::string& text : options.addresses) {
    std::string problem;
    const std::vector<IpNetwork> of_port = parse_networks(text, problem);
    if (!problem.empty()) return "--address " + problem;
    for (const IpNetwork& network : of_port) {
      const IpAddressText address(network.address);
      if (const std::string why = no_hosts_address(network); !why.empty())
        return fmt::format("--address {} {}: give the port an address of its own", text, why);
      if (!network.address.is_ipv4() && options.mtu < kIpv6MtuMin)
        return fmt::format("--mtu {} is too little for --address {}: IPv6 needs {}", options.mtu,
                           address.view(), kIpv6MtuMin);
      const bool alone = network.prefix_length == (network.address.is_ipv4() ? 32 : kIpv6Bits);
      if (alone && !all_named && !options.gateway)
        return fmt::format(
            "--address {}/{} is a subnet of one address, so no source may connect: give the subnet's own "
            "prefix length, or name the sources with --allow",
            address.view(), network.prefix_length);
      for (const IpNetwork& other : networks)
        if (other.address == network.address)
          return fmt::format("--address {} is given twice, or to two ports", address.view());
      networks.push_back(network);
    }
  }
  return {};
}

std::string check_gateways(const std::string& text, const std::vector<IpNetwork>& networks) {
  std::string problem;
  const std::vector<IpAddress> gateways = parse_gateways(text, problem);
  if (!problem.empty()) return "--gateway " + problem;
  for (const IpAddress& gateway : gateways) {
    const IpAddressText name(gateway);
    const auto of_family = [&](const IpNetwork& n) { return n.address.is_ipv4() == gateway.is_ipv4(); };
    if (std::none_of(networks.begin(), networks.end(), of_family))
      return fmt::format("--gateway {} is of a family that no --address has", name.view());
    if (!gateway.is_ipv4() && !plausible_source(gateway))
      return fmt::format("--gateway {} is no host's address", name.view());
    bool reached = gateway.is_link_local();
    for (const IpNetwork& network : networks) {
      if (network.address == gateway)
        return fmt::format("--gateway {} is the port's own address", name.view());
      reached = reached || network.contains(gateway);
    }
    if (!reached)
      return fmt::format(
          "--gateway {} is in the subnet of no --address: correct the gateway or the prefix length",
          name.view());
  }
  return {};
}

// A network none of whose hosts could reach us is a slip.
std::string check_sources(const char* option, const std::string& text,
                          const std::vector<IpNetwork>& networks) {
  IpNetwork network;
  if (!parse_network(text, network))
    return fmt::format("{} {}: expected a network such as 10.77.0.0/24 or fd00::/64", option, text);
  const auto of_family = [&](const IpNetwork& n) { return n.address.is_ipv4() == network.address.is_ipv4(); };
  if (std::any_of(networks.begin(), networks.end(), of_family)) return {};
  return fmt::format("{} {}: no --address is of that family, so no host of that network can connect", option,
                     text);
}

}  // namespace

std::string no_hosts_address(const IpNetwork& network) {
  return network.address.is_ipv4() ? no_hosts_ipv4(network) : no_hosts_ipv6(network);
}

std::string address_warning(const IpAddress& address) {
  if (!address.is_link_local()) return {};
  return fmt::format(
      "address {} is link-local, so the source must add the name of its own interface "
      "(tcp:[fe80::2%eth0]:4444); a unique local address (fd00::/8) needs none",
      IpAddressText(address).view());
}

std::string check_addresses(const HostOptions& options, const TenantOptions& tenant) {
  if (tenant.listen == 0) return "--listen 0: give the TCP port that the source connects to, such as 4444";
  std::vector<IpNetwork> networks;
  if (std::string problem = check_ports(options, !tenant.allow.empty(), networks); !problem.empty())
    return problem;
  if (options.gateway)
    if (std::string problem = check_gateways(*options.gateway, networks); !problem.empty()) return problem;
  for (const std::string& text : tenant.allow)
    if (std::string problem = check_sources("--allow", text, networks); !problem.empty()) return problem;
  for (const std::string& text : tenant.source_nat)
    if (std::string problem = check_sources("--source-nat", text, networks); !problem.empty()) return problem;
  return {};
}

}  // namespace migrx

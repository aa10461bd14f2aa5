#include "loader/app/address_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "dataplane/wire/address_text.h"

namespace migrx {
namespace {

std::vector<std::string> parts_of(const std::string& text) {
  std::vector<std::string> parts{{}};
  for (const char c : text)
    if (c == ',')
      parts.emplace_back();
    else
      parts.back().push_back(c);
  return parts;
}

const IpAddress* gateway_for(const IpAddress& ip, const std::vector<IpAddress>& gateways) {
  const auto found = std::find_if(gateways.begin(), gateways.end(),
                                  [&](const IpAddress& g) { return g.is_ipv4() == ip.is_ipv4(); });
  return found == gateways.end() ? nullptr : &*found;
}

}  // namespace

bool parse_network(const std::string& text, IpNetwork& out) {
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos || text.find('\0') != std::string::npos) return false;
  if (!parse_ip_address(text.substr(0, slash).c_str(), out.address)) return false;
  unsigned length = 0;
  const char* const first = text.data() + slash + 1;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(first, last, length);
  if (error != std::errc{} || end != last || length > (out.address.is_ipv4() ? 32U : 128U)) return false;
  out.prefix_length = static_cast<uint8_t>(length);
  return true;
}

std::vector<IpNetwork> parse_networks(const std::string& text, std::string& problem) {
  std::vector<IpNetwork> networks;
  for (const std::string& part : parts_of(text)) {
    IpNetwork network;
    if (!parse_network(part, network)) {
      problem = fmt::format(
          "{}: expected an address with its prefix length, such as 10.77.0.2/24 or fd00::2/64 (both for one "
          "port: 10.77.0.2/24,fd00::2/64)",
          part);
      return {};
    }
    networks.push_back(network);
  }
  if (networks.size() <= PollPort::kAddressesMax) return networks;
  problem = fmt::format("{}: a port has at most {} addresses", text, PollPort::kAddressesMax);
  return {};
}

std::vector<IpAddress> parse_gateways(const std::string& text, std::string& problem) {
  std::vector<IpAddress> gateways;
  for (const std::string& part : parts_of(text)) {
    IpAddress gateway;
    if (part.find('\0') != std::string::npos || !parse_ip_address(part.c_str(), gateway)) {
      problem =
          fmt::format("{}: expected an address without a prefix length, such as 10.77.0.1 or fe80::1", part);
      return {};
    }
    if (gateway_for(gateway, gateways) != nullptr) {
      problem = fmt::format("{}: give at most one gateway of each family", text);
      return {};
    }
    gateways.push_back(gateway);
  }
  return gateways;
}

std::vector<PortAddress> port_addresses(const std::vector<IpNetwork>& networks,
                                        const std::vector<IpAddress>& gateways) {
  std::vector<PortAddress> addresses;
  for (const IpNetwork& network : networks) {
    PortAddress address{network.address, network.prefix_length, {}};
    if (const IpAddress* const gateway = gateway_for(network.address, gateways); gateway != nullptr)
      address.gateway = *gateway;
    addresses.push_back(address);
  }
  return addresses;
}

std::vector<IpNetwork> allowed_by_default(const std::vector<IpNetwork>& networks,
                                          const std::vector<IpAddress>& gateways) {
  std::vector<IpNetwork> allowed;
  for (const IpNetwork& network : networks)
    if (gateway_for(network.address, gateways) == nullptr)
      allowed.push_back(network);
    else
      allowed.push_back({network.address, 0});
  return allowed;
}

}  // namespace migrx

// Addresses and networks as options give them, of both families.
#pragma once

#include <string>
#include <vector>

#include "dataplane/link.h"
#include "dataplane/wire/address.h"

namespace migrx {

// "10.77.0.2/24", "fd00::2/64"; false: not an address with a prefix length that its family has.
[[nodiscard]] bool parse_network(const std::string& text, IpNetwork& out);
// Parses --address of one port: networks with commas between them. Empty: problem says which part
// is no network.
[[nodiscard]] std::vector<IpNetwork> parse_networks(const std::string& text, std::string& problem);
// The same of --gateway: at most one address of each family.
[[nodiscard]] std::vector<IpAddress> parse_gateways(const std::string& text, std::string& problem);

// The addresses of a port with the gateway that each has.
[[nodiscard]] std::vector<PortAddress> port_addresses(const std::vector<IpNetwork>& networks,
                                                      const std::vector<IpAddress>& gateways);
// Who may connect when --allow is not given: the ports' subnets, and every address of a family that
// has a gateway.
[[nodiscard]] std::vector<IpNetwork> allowed_by_default(const std::vector<IpNetwork>& networks,
                                                        const std::vector<IpAddress>& gateways);

}  // namespace migrx

// Addresses that are one source: a NAT gives the connections of one host any address of its pool.
#pragma once

#include <vector>

#include "dataplane/wire/address.h"

namespace migrx {

// Pure; constant after start.
class SourceNat {
 public:
  // Connections from the network may be one source's.
  void add(const IpNetwork& network) { networks_.push_back(network); }
  // Stands for all addresses that may be the same source's.
  [[nodiscard]] IpAddress source_of(const IpAddress& address) const noexcept {
    for (const IpNetwork& network : networks_)
      if (network.contains(address)) return network.address;
    return address;
  }

 private:
  std::vector<IpNetwork> networks_;
};

}  // namespace migrx

// Addresses that are one source: a NAT gives the connections of one host any address of its pool.
#pragma once

#include <cstdint>
#include <vector>

namespace migrx {

// Pure; constant after start.
class SourceNat {
 public:
  // Connections from the network (IPv4, host order; prefix_length at most 32) may be one source's.
  void add(uint32_t network, uint32_t prefix_length) {
    const uint32_t mask = prefix_length == 0 ? 0 : ~uint32_t{0} << (32 - prefix_length);
    ranges_.push_back({network & mask, mask});
  }
  // Stands for all addresses that may be the same source's.
  [[nodiscard]] uint32_t source_of(uint32_t address) const noexcept {
    for (const Range& range : ranges_)
      if ((address & range.mask) == range.network) return range.network;
    return address;
  }

 private:
  struct Range {
    uint32_t network;
    uint32_t mask;
  };
  std::vector<Range> ranges_;
};

}  // namespace migrx

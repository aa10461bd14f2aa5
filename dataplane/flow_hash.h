// A keyed hash of the 4-tuple for the tables of this folder.
#pragma once

#include <bit>
#include <cstdint>

#include "dataplane/wire/address.h"

namespace migrx {

// Not cryptographic, and it need not be: only peers that finished a handshake get into the tables, whose size
// is bounded. The seed keeps a peer from computing collisions in advance.
[[nodiscard]] inline uint64_t flow_hash(const FourTuple& tuple, uint64_t seed) noexcept {
  __extension__ using Wide = unsigned __int128;
  const auto fold = [](uint64_t a, uint64_t b) noexcept {
    const Wide product = Wide{a} * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  const uint64_t ports = uint64_t{tuple.remote_port} << 16 | tuple.local_port;
  // Odd constants with about as many ones as zeros: the fractions of pi and e.
  constexpr uint64_t kPi = 0x243f6a8885a308d3U;
  constexpr uint64_t kE = 0xb7e151628aed2a6bU;
  uint64_t ips = seed;
  if (tuple.is_ipv4()) [[likely]]
    ips ^= uint64_t{tuple.remote_ip.ipv4().value} << 32 | tuple.local_ip.ipv4().value;
  else  // each factor holds bits of the seed: a peer that chooses its address cannot make one of them 0
    ips ^= fold(tuple.remote_ip.high ^ seed, tuple.remote_ip.low ^ std::rotl(seed, 23)) ^
           fold(tuple.local_ip.high ^ kE, tuple.local_ip.low ^ std::rotl(seed, 41));
  return fold(fold(ips, kPi) ^ ports, kE ^ seed);
}

}  // namespace migrx

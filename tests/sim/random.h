// The simulation's only source of chance: everything a run does follows from one printed seed.
#pragma once

#include <cstdint>

namespace migrx::sim {

// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit state, any seed is a good one. The standard library's
// distributions are not used because their results differ between implementations.
class Random {
 public:
  explicit Random(uint64_t seed) noexcept : state_(seed) {}

  uint64_t next() noexcept {
    state_ += 0x9e3779b97f4a7c15ULL;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  // 0 .. n-1; n > 0. The upper half of the product: half of the time of a division (Lemire 2019).
  uint64_t below(uint64_t n) noexcept {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }
  // low .. high, both included.
  uint64_t between(uint64_t low, uint64_t high) noexcept { return low + below(high - low + 1); }
  bool chance(double probability) noexcept {
    return static_cast<double>(next() >> 11) * 0x1p-53 < probability;
  }
  template <class T, std::size_t N>
  const T& pick(const T (&choices)[N]) noexcept {
    return choices[below(N)];
  }
  // A generator whose sequence does not depend on how often this one is used afterwards.
  Random fork() noexcept { return Random{next()}; }

 private:
  uint64_t state_;
};

}  // namespace migrx::sim

// The clock of everything here that waits or measures.
#pragma once

#include <time.h>

#include <cstdint>

namespace migrx {

// Nanoseconds of CLOCK_MONOTONIC, which all processes of a host share and nobody sets. Any thread.
[[nodiscard]] inline uint64_t monotonic_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace migrx

// Counts the calls of operator new on a thread, to show that the data path makes none.
//
// The counting operator new replaces the usual one in every program that links the simulation, but not in
// sanitizer builds, which bring their own; counted() tells.
#pragma once

#include <cstdint>

namespace migrx::sim {

[[nodiscard]] bool allocations_are_counted();
// By this thread since it began, without those made inside an AllocationsNotCounted.
[[nodiscard]] uint64_t allocations();

// For the simulation's own work inside a call that the receiver makes: packets it hands over, pages it
// compares.
class AllocationsNotCounted {
 public:
  AllocationsNotCounted();
  ~AllocationsNotCounted();
  AllocationsNotCounted(const AllocationsNotCounted&) = delete;
  AllocationsNotCounted& operator=(const AllocationsNotCounted&) = delete;
};

}  // namespace migrx::sim

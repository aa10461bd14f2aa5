#include "tests/sim/allocation_counter.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace migrx::sim {
namespace {

thread_local uint64_t counted = 0;
thread_local uint32_t not_counted = 0;

}  // namespace

bool allocations_are_counted() {
#ifdef MIGRX_SANITIZED
  return false;
#else
  return true;
#endif
}

uint64_t allocations() {
  return counted;
}

AllocationsNotCounted::AllocationsNotCounted() {
  ++not_counted;
}
AllocationsNotCounted::~AllocationsNotCounted() {
  --not_counted;
}

namespace {

[[maybe_unused]] void* allocate(std::size_t bytes, std::size_t alignment) {
  if (not_counted == 0) ++counted;
  // malloc() where it will do: it has a quick way, and the simulation spends a good part of its time here.
  void* const memory = alignment <= alignof(std::max_align_t)
                           ? std::malloc(bytes)
                           : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace
}  // namespace migrx::sim

#ifndef MIGRX_SANITIZED
// The array and nothrow forms of the library call these.
void* operator new(std::size_t bytes) {
  return migrx::sim::allocate(bytes, alignof(std::max_align_t));
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return migrx::sim::allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
#endif

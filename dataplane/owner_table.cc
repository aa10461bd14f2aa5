#include "dataplane/owner_table.h"

#include <algorithm>
#include <bit>

#include "dataplane/flow_hash.h"

namespace migrx {

OwnerTable::OwnerTable(uint32_t connections_max, uint64_t seed)
    : mask_(std::bit_ceil(std::max(connections_max * 8, kWindow * 2)) - 1),
      seed_(seed),
      entries_(std::make_unique<std::atomic<uint64_t>[]>(mask_ + 1)) {}

void OwnerTable::offer(const FourTuple& tuple, uint32_t core) noexcept {
  const uint64_t hash = flow_hash(tuple, seed_);
  const uint64_t entry = (hash & kHashMask) | (core + 1);
  std::atomic<uint64_t>* place = nullptr;
  for (uint32_t i = 0; i < kWindow; ++i) {
    std::atomic<uint64_t>& slot = at(hash, i);
    const uint64_t value = slot.load(std::memory_order_relaxed);
    if ((value & kHashMask) == (hash & kHashMask) && value != 0) {
      place = (value & kConnection) != 0 ? nullptr : &slot;
      break;
    }
    // An empty entry, else the handshake that the hash happens to point at.
    if (value == 0 && (place == nullptr || place->load(std::memory_order_relaxed) != 0)) place = &slot;
    if (place == nullptr && (value & kConnection) == 0) place = &slot;
  }
  if (place == nullptr) return;
  uint64_t before = place->load(std::memory_order_relaxed);
  if ((before & kConnection) == 0) place->compare_exchange_strong(before, entry, std::memory_order_relaxed);
}

bool OwnerTable::claim(const FourTuple& tuple, uint32_t core) noexcept {
  const uint64_t hash = flow_hash(tuple, seed_);
  const uint64_t entry = (hash & kHashMask) | kConnection | (core + 1);
  // First the tuple's own handshake, then an empty entry, then anybody's handshake.
  for (uint32_t pass = 0; pass < 3; ++pass) {
    for (uint32_t i = 0; i < kWindow; ++i) {
      std::atomic<uint64_t>& slot = at(hash, i);
      uint64_t value = slot.load(std::memory_order_relaxed);
      const bool suitable = pass == 0   ? value != 0 && (value & kHashMask) == (hash & kHashMask)
                            : pass == 1 ? value == 0
                                        : (value & kConnection) == 0;
      if (suitable && slot.compare_exchange_strong(value, entry, std::memory_order_relaxed)) return true;
    }
  }
  return false;
}

void OwnerTable::release(const FourTuple& tuple, uint32_t core) noexcept {
  const uint64_t hash = flow_hash(tuple, seed_);
  for (uint32_t i = 0; i < kWindow; ++i) {
    std::atomic<uint64_t>& slot = at(hash, i);
    uint64_t value = slot.load(std::memory_order_relaxed);
    if (value != 0 && (value & ~kConnection) == ((hash & kHashMask) | (core + 1)))
      slot.compare_exchange_strong(value, 0, std::memory_order_relaxed);
  }
}

uint32_t OwnerTable::find(const FourTuple& tuple) const noexcept {
  const uint64_t hash = flow_hash(tuple, seed_);
  for (uint32_t i = 0; i < kWindow; ++i) {
    const uint64_t value = at(hash, i).load(std::memory_order_relaxed);
    if (value != 0 && (value & kHashMask) == (hash & kHashMask))
      return static_cast<uint32_t>(value & kCoreMask) - 1;
  }
  return kNobody;
}

PollMesh::PollMesh(uint32_t cores, uint32_t connections_max, uint64_t seed)
    : cores_(cores), owners_(connections_max, seed) {
  rings_.reserve(std::size_t{cores} * cores);
  neighbours_.reserve(std::size_t{cores} * cores);
  for (uint32_t from = 0; from < cores; ++from)
    for (uint32_t to = 0; to < cores; ++to) {
      rings_.push_back(from == to ? nullptr : std::make_unique<SpscRing<Forwarded>>(kRingFrames));
      neighbours_.push_back(from == to ? nullptr : std::make_unique<SpscRing<Neighbour>>(kRingNeighbours));
    }
}

}  // namespace migrx

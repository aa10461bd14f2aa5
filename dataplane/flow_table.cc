#include "dataplane/flow_table.h"

#include <algorithm>
#include <bit>

#include "dataplane/flow_hash.h"

namespace migrx {

FlowTable::FlowTable(uint32_t flows_max, uint64_t seed)
    : flows_max_(std::max(flows_max, 1U)),
      mask_(std::bit_ceil(flows_max_ * 4) - 1),
      seed_(seed),
      entries_(std::make_unique<Entry[]>(mask_ + 1)) {}

uint32_t FlowTable::home(const FourTuple& tuple) const noexcept {
  return static_cast<uint32_t>(flow_hash(tuple, seed_)) & mask_;
}

uint32_t FlowTable::find(const FourTuple& tuple) const noexcept {
  // Ends: three quarters of the entries are empty.
  for (uint32_t i = home(tuple);; i = (i + 1) & mask_) {
    const Entry& entry = entries_[i];
    if (entry.connection == kNone) return kNone;
    if (entry.tuple == tuple) return entry.connection;
  }
}

bool FlowTable::insert(const FourTuple& tuple, uint32_t connection) noexcept {
  if (size_ == flows_max_) return false;
  uint32_t i = home(tuple);
  for (; entries_[i].connection != kNone; i = (i + 1) & mask_)
    if (entries_[i].tuple == tuple) return false;
  entries_[i] = {tuple, connection};
  ++size_;
  return true;
}

bool FlowTable::erase(const FourTuple& tuple) noexcept {
  uint32_t hole = home(tuple);
  for (;; hole = (hole + 1) & mask_) {
    if (entries_[hole].connection == kNone) return false;
    if (entries_[hole].tuple == tuple) break;
  }
  // An entry behind the hole moves into it unless its home lies cyclically in (hole, entry]: a probe for it
  // would not pass the hole.
  for (uint32_t i = (hole + 1) & mask_; entries_[i].connection != kNone; i = (i + 1) & mask_) {
    const uint32_t distance_home = (i - home(entries_[i].tuple)) & mask_;
    const uint32_t distance_hole = (i - hole) & mask_;
    if (distance_home < distance_hole) continue;
    entries_[hole] = entries_[i];
    hole = i;
  }
  entries_[hole].connection = kNone;
  --size_;
  return true;
}

}  // namespace migrx

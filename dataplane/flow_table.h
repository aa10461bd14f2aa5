// Finds the connection of this poll core to which a segment belongs.
#pragma once

#include <cstdint>
#include <memory>

#include "dataplane/wire/address.h"

namespace migrx {

// Open addressing with linear probing; at most a quarter full, so a probe seldom looks at more than one
// entry. Removal moves later entries up instead of leaving tombstones: a table that lives for weeks
// stays as fast as on its first day. One poll core; allocates in the constructor only.
class FlowTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // flows_max: the most flows at any time, at least 1.
  FlowTable(uint32_t flows_max, uint64_t seed);

  // The connection of `tuple`, or kNone.
  [[nodiscard]] uint32_t find(const FourTuple& tuple) const noexcept;
  // False: there already, or flows_max are there. connection != kNone.
  bool insert(const FourTuple& tuple, uint32_t connection) noexcept;
  // False: not there.
  bool erase(const FourTuple& tuple) noexcept;
  [[nodiscard]] uint32_t size() const noexcept { return size_; }

 private:
  struct Entry {
    FourTuple tuple;
    uint32_t connection = kNone;
  };
  [[nodiscard]] uint32_t home(const FourTuple& tuple) const noexcept;

  const uint32_t flows_max_;
  const uint32_t mask_;
  const uint64_t seed_;
  const std::unique_ptr<Entry[]> entries_;
  uint32_t size_ = 0;
};

}  // namespace migrx

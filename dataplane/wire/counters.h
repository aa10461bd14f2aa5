// Counters as data: an enum and a table made from one .def file, so that a fate, its export and its
// explanation cannot drift apart.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dataplane/handoff/counter.h"

namespace migrx {

enum class CounterSeverity : uint8_t {
  info,     // part of ordinary life
  warning,  // somebody should look if it keeps growing
  error,    // the migration suffers
};

struct CounterInfo {
  std::string_view name;
  CounterSeverity severity;
  std::string_view sentence;
};

// One writing thread; any thread reads.
template <class Enum, std::size_t kCount>
class CounterBlock {
 public:
  void add(Enum which, uint64_t n = 1) noexcept { counters_[static_cast<std::size_t>(which)].add(n); }
  [[nodiscard]] uint64_t read(Enum which) const noexcept {
    return counters_[static_cast<std::size_t>(which)].read();
  }
  static constexpr std::size_t size() noexcept { return kCount; }

 private:
  std::array<Counter, kCount> counters_{};
};

enum class WireCounter : uint8_t {
#define WIRE_COUNTER(id, severity, sentence) id,
#include "dataplane/wire/counters.def"
#undef WIRE_COUNTER
};

inline constexpr std::array kWireCounterInfo{
#define WIRE_COUNTER(id, severity, sentence) CounterInfo{#id, CounterSeverity::severity, sentence},
#include "dataplane/wire/counters.def"
#undef WIRE_COUNTER
};

using WireCounters = CounterBlock<WireCounter, kWireCounterInfo.size()>;

}  // namespace migrx

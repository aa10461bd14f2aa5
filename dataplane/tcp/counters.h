// The fates of TCP segments, counted per poll core.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/wire/counters.h"

namespace migrx {

enum class TcpCounter : uint8_t {
#define TCP_COUNTER(id, severity, sentence) id,
#include "dataplane/tcp/counters.def"
#undef TCP_COUNTER
};

inline constexpr std::array kTcpCounterInfo{
#define TCP_COUNTER(id, severity, sentence) CounterInfo{#id, CounterSeverity::severity, sentence},
#include "dataplane/tcp/counters.def"
#undef TCP_COUNTER
};

using TcpCounters = CounterBlock<TcpCounter, kTcpCounterInfo.size()>;

}  // namespace migrx

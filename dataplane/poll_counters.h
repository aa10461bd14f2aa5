// The counters of a poll core, without the fates of segments: dataplane/wire and dataplane/tcp count those.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/wire/counters.h"

namespace migrx {

enum class PollCounter : uint8_t {
#define POLL_COUNTER(id, severity, sentence) id,
#include "dataplane/poll_counters.def"
#undef POLL_COUNTER
};
inline constexpr std::array kPollCounterInfo{
#define POLL_COUNTER(id, severity, sentence) CounterInfo{#id, CounterSeverity::severity, sentence},
#include "dataplane/poll_counters.def"
#undef POLL_COUNTER
};
using PollCounters = CounterBlock<PollCounter, kPollCounterInfo.size()>;

}  // namespace migrx

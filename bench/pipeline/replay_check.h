// What a ReplayPort must have brought into guest RAM, and whether it is there.
#pragma once

#include <string>

#include "bench/pipeline/guest_plan.h"
#include "bench/pipeline/replay_port.h"

namespace migrx::bench {

// Compares every byte of guest RAM with what the source sent last; empty: equal. Sends everything once more,
// into memory of its own: buffers are sent with what their earlier uses left in them, so only their whole
// history tells what a segment held. That each page is in its place is looked at apart, by its stamp.
[[nodiscard]] std::string check_guest(const GuestPlan& plan, const ReplayPort& port, const std::byte* guest);

}  // namespace migrx::bench

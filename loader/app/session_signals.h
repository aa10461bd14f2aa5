// Signals for a session: how far it has come, and what signal_policy.h answers.
#pragma once

#include "loader/app/signal_policy.h"

namespace migrx {

class SessionControl;
class Terminal;

// Control thread.
[[nodiscard]] Standing standing_of(const SessionControl& control);
// Carries out `policy`'s answer to signal `number`, and tells the operator; 0: there was no signal. Returns
// the answer.
SignalAnswer act_on_signal(int number, uint64_t now_ns, SignalPolicy& policy, SessionControl& control,
                           Terminal& terminal);

}  // namespace migrx

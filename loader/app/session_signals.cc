#include "loader/app/session_signals.h"

#include "loader/app/terminal.h"
#include "loader/session/session_control.h"

namespace migrx {

Standing standing_of(const SessionControl& control) {
  if (control.over() || control.aborting()) return Standing::ending;
  if (control.telling()) return control.told() ? Standing::ending : Standing::verdict;
  if (control.relaying()) return Standing::postcopy;
  if (control.paused()) return Standing::paused;
  if (!control.guest_in_transit()) return Standing::migrating;
  return control.cancellable() ? Standing::in_transit : Standing::one_way;
}

SignalAnswer act_on_signal(int number, uint64_t now_ns, SignalPolicy& policy, SessionControl& control,
                           Terminal& terminal) {
  if (number == 0) return SignalAnswer::none;
  const SignalAnswer answer = policy.on_signal(number, now_ns, standing_of(control));
  if (answer == SignalAnswer::fail_over && !control.fail_over()) {
    terminal.warn("SIGUSR1: nothing to fail over to: not in COLO state");
    return SignalAnswer::none;
  }
  if (answer == SignalAnswer::end || answer == SignalAnswer::cancel) control.cancel();
  if (answer == SignalAnswer::leave) control.leave_paused();
  if (answer == SignalAnswer::give_up) (void)control.give_up_telling();
  if (answer != SignalAnswer::none) terminal.warn(to_text(answer, number));
  return answer;
}

}  // namespace migrx

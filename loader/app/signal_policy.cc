#include "loader/app/signal_policy.h"

#include <fmt/format.h>
#include <signal.h>

#include <cstring>

namespace migrx {

SignalAnswer SignalPolicy::on_signal(int number, uint64_t now_ns, Standing standing) noexcept {
  if (number == SIGUSR1) return SignalAnswer::fail_over;
  if (counted_ > 0 && now_ns - last_ns_ < kOneNs) return SignalAnswer::none;
  last_ns_ = now_ns;
  const bool first = counted_++ == 0;
  switch (standing) {
    case Standing::preparing:
    case Standing::migrating:
      return SignalAnswer::end;
    case Standing::in_transit:
      return first ? SignalAnswer::drain : SignalAnswer::cancel;
    case Standing::one_way:
      return first ? SignalAnswer::drain : SignalAnswer::refuse;
    case Standing::postcopy:
      return first ? SignalAnswer::relay : SignalAnswer::hold;
    case Standing::paused:
      return first ? SignalAnswer::wait : SignalAnswer::leave;
    case Standing::verdict:
      return first ? SignalAnswer::drain : SignalAnswer::give_up;
    case Standing::ending:
      return SignalAnswer::none;
  }
  return SignalAnswer::none;
}

const char* to_word(SignalAnswer answer) noexcept {
  switch (answer) {
    case SignalAnswer::none:
      return "none";
    case SignalAnswer::end:
      return "end";
    case SignalAnswer::drain:
      return "drain";
    case SignalAnswer::cancel:
      return "cancel";
    case SignalAnswer::give_up:
      return "give-up";
    case SignalAnswer::relay:
      return "relay";
    case SignalAnswer::hold:
      return "hold";
    case SignalAnswer::wait:
      return "wait";
    case SignalAnswer::leave:
      return "leave";
    case SignalAnswer::refuse:
      return "refuse";
    case SignalAnswer::fail_over:
      return "fail-over";
  }
  return "none";
}

std::string to_text(SignalAnswer answer, int number) {
  const char* const name = ::sigabbrev_np(number);
  const std::string signal = name == nullptr ? fmt::format("signal {}", number) : fmt::format("SIG{}", name);
  switch (answer) {
    case SignalAnswer::none:
      return {};
    case SignalAnswer::end:
      return signal + ": ending; the guest stays at the source";
    case SignalAnswer::drain:
      return signal +
             ": the guest is in transit, so the migration finishes first; a second signal cancels it";
    case SignalAnswer::cancel:
      return signal + " once more: cancelling; the guest stays at the source";
    case SignalAnswer::give_up:
      return signal +
             " once more: migrx waits no longer for the source; ask the source (query-migrate) who has the "
             "guest";
    case SignalAnswer::relay:
      return signal +
             ": the guest runs at the destination and fetches its last pages through migrx, which ends when "
             "all of "
             "them are there";
    case SignalAnswer::hold:
      return signal +
             " once more: without migrx the guest would stand still at its next missing page, and neither "
             "QEMU has "
             "all of it, so migrx goes on; SIGKILL ends it all the same (docs/postcopy.md says what is left "
             "then)";
    case SignalAnswer::wait:
      return signal +
             ": postcopy is paused, and migrx waits for the source to resume: migrate-recover at the "
             "destination, then "
             "migrate with resume=true at the source; a second signal ends migrx";
    case SignalAnswer::leave:
      return signal + " once more: ending; both QEMUs go on waiting (docs/postcopy.md)";
    case SignalAnswer::refuse:
      return signal +
             " once more: the source has no return path and may believe that it is done, so the migration "
             "goes on: cancelling could lose the guest";
    case SignalAnswer::fail_over:
      return signal + ": failover to the last finished checkpoint";
  }
  return {};
}

}  // namespace migrx

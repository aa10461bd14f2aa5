// What a signal does, by how far the migration has come: docs/signals.md is this table in words.
//
// The first signal ends a migration that has not begun or may still end. From the switchover on the source's
// guest stands still, and the first signal lets the migration finish. A second signal, at least a second
// later, cancels what can be cancelled without losing a guest. Signals within a second count as one: a
// terminal, a service manager and a script may each send theirs, and the supervisor passes them on.
//
// Sans-IO.
#pragma once

#include <cstdint>
#include <string>

namespace migrx {

enum class Standing : uint8_t {
  preparing,   // nothing has begun; nobody may connect yet
  migrating,   // listening, or the guest runs at the source
  in_transit,  // the guest stands still, and the source can be told that it still has it
  one_way,     // the guest stands still, and the source, without a return path, may believe that it is done
  postcopy,    // the guest runs at the destination, and some of its pages are still at the source
  paused,      // likewise, and a connection broke: both QEMUs wait for it to be made anew
  verdict,     // the destination has the guest, the source has not acknowledged that
  ending,      // it is being ended, or is over
};

enum class SignalAnswer : uint8_t {
  none,     // one of several, or nothing is left to be done
  end,      // now: the source keeps its guest
  drain,    // what is under way finishes first
  cancel,   // now, although it was nearly done: the source keeps its guest
  give_up,  // the source is not waited for any longer: it is reset, and must be asked who has the guest
  relay,    // migrx carries pages between two halves of a guest: it goes on until all are there
  hold,     // likewise, a second time: what to do to end it all the same
  wait,     // for the source to resume a postcopy migration that is paused
  leave,    // likewise, a second time: another migrx may take the migration up
  refuse,   // whatever is done could lose the guest: it goes on
  fail_over,
};

class SignalPolicy {
 public:
  static constexpr uint64_t kOneNs = 1'000'000'000;

  // `number` as in signal(7); now_ns: monotonic.
  [[nodiscard]] SignalAnswer on_signal(int number, uint64_t now_ns, Standing standing) noexcept;

 private:
  uint64_t last_ns_ = 0;  // of the last one that counted
  uint32_t counted_ = 0;
};

// One word for programs, as docs/control.schema.json has it.
[[nodiscard]] const char* to_word(SignalAnswer answer) noexcept;
// For the terminal, without a line end.
[[nodiscard]] std::string to_text(SignalAnswer answer, int number);

}  // namespace migrx

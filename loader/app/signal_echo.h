// Says that a signal was heard while one call keeps the control thread: DPDK's EAL takes some 0.3 s, and
// nothing interrupts it.
#pragma once

#include <thread>

#include "loader/app/interruption.h"
#include "loader/app/terminal.h"
#include "numa/descriptor.h"

namespace migrx {

// From its construction to its end; the terminal is its own so long, but for what the call itself prints.
// Takes no signal: whoever constructed it looks for that afterwards. Both outlive it.
class SignalEcho {
 public:
  // Throws std::system_error when there is no descriptor or no thread left.
  SignalEcho(const Interruption& interruption, Terminal& terminal);
  ~SignalEcho();
  SignalEcho(const SignalEcho&) = delete;
  SignalEcho& operator=(const SignalEcho&) = delete;

 private:
  const Descriptor over_;  // eventfd
  std::thread thread_;
};

}  // namespace migrx

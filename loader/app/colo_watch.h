// COLO for the operator: what changed since the last look, in words.
#pragma once

#include <cstdint>

#include "loader/app/terminal.h"
#include "loader/colo/secondary.h"

namespace migrx {

// Bytes that this host can give without swapping (MemAvailable of /proc/meminfo); 0 when it does not say.
[[nodiscard]] uint64_t available_memory_bytes();

class ColoWatch {
 public:
  // Tells once when COLO begins, and once when the source is lost, with the signals that the
  // operator can send.
  void look(const ColoSecondary& colo, Terminal& terminal);

 private:
  bool begun_ = false;
  bool lost_ = false;
};

}  // namespace migrx

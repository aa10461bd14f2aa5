#include "numa/core_dumps.h"

#include <sys/prctl.h>

#include <atomic>

namespace migrx {
namespace {

std::atomic<bool> forbidden{false};  // belongs to the flag in the kernel, of which there is one, too

void set(unsigned long dumpable) noexcept {
  (void)::prctl(PR_SET_DUMPABLE, dumpable, 0UL, 0UL, 0UL);
}

}  // namespace

void forbid_core_dumps() noexcept {
  forbidden.store(true);
  set(0);
}

void restore_core_dumps(int dumpable) noexcept {
  if (dumpable == 1) set(1);
  // Looked at afterwards: whoever forbids it stores this first.
  if (forbidden.load()) set(0);
}

}  // namespace migrx

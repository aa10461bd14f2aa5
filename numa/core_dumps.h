// Whether this process may be dumped or attached to (PR_SET_DUMPABLE, prctl(2)): a flag of the whole process,
// which two parts of it would change without knowing of each other.
#pragma once

namespace migrx {

// From now on, and whatever restore_core_dumps() is told, memory of this process is in no core dump and shown
// to no debugger but root's: it holds keys. Any thread.
void forbid_core_dumps() noexcept;
// `dumpable`: what PR_GET_DUMPABLE said before the kernel took it away, because a thread changed its user.
// Any thread.
void restore_core_dumps(int dumpable) noexcept;

}  // namespace migrx

// A descriptor of another process, as a path names it: /proc/PID/fd/N.
//
// Root may open such a path for writing whatever the process may do: a process that runs as somebody else and
// has a file open for reading could have root write into it. So the descriptor itself is taken
// (pidfd_getfd(2), Linux 5.6), with the rights that it was opened with.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string_view>

#include "numa/descriptor.h"

namespace migrx {

struct ProcessDescriptor {
  pid_t process = 0;
  int number = -1;
  bool operator==(const ProcessDescriptor&) const = default;
};
// nullopt: the path has another form, or is this process's own ("self", its number). Pure but for getpid().
[[nodiscard]] std::optional<ProcessDescriptor> parse_process_descriptor(std::string_view path);

// A pidfd of a process: its number is no other's while it is held. Empty: errno says why. Any thread.
[[nodiscard]] Descriptor hold_process(pid_t process);

// Shares the open file with that process. Empty: errno says why; EPERM without CAP_SYS_PTRACE. Any thread.
[[nodiscard]] Descriptor take_descriptor(const ProcessDescriptor& of);
// The same of a process that a pidfd holds, so that its number cannot have become another's.
[[nodiscard]] Descriptor take_descriptor(int pidfd, int number);

}  // namespace migrx

// Tells when a process of somebody else has ended (pidfd_open(2)): a process id alone may be
// another's by then.
#pragma once

#include <sys/types.h>

#include <string>

#include "numa/descriptor.h"

namespace migrx {

class ProcessWatch {
 public:
  // Empty: it is watched from now on. Otherwise why it cannot be.
  [[nodiscard]] std::string watch(pid_t process);
  // One system call. False while nothing is watched.
  [[nodiscard]] bool ended() const noexcept;
  [[nodiscard]] bool watching() const noexcept { return static_cast<bool>(fd_); }
  [[nodiscard]] pid_t process() const noexcept { return process_; }

 private:
  pid_t process_ = 0;
  Descriptor fd_;
};

}  // namespace migrx

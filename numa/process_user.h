// The users that a process runs as. Not the owner of /proc/PID: that is root for a process that has asked not
// to be dumped (prctl(2)), which anybody may.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <optional>

namespace migrx {

// Real, effective, saved, and for files (proc_pid_status(5)); nullopt: there is no such process. The number
// may be another's a moment later: where that matters hold a pidfd first, and look whether the process still
// runs afterwards.
[[nodiscard]] std::optional<std::array<uid_t, 4>> users_of(pid_t process);
// The one user that it runs as in every way; nullopt: there are several, or no such process.
[[nodiscard]] std::optional<uid_t> only_user_of(pid_t process);

// Of a UNIX socket's other end, as it was when that process connected or began to listen (SO_PEERCRED of
// unix(7)); pid 0: a process of another PID namespace. nullopt: nobody is there.
[[nodiscard]] std::optional<ucred> peer_credentials(int socket) noexcept;

}  // namespace migrx

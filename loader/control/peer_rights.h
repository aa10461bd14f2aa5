// Doing something with the rights of a peer instead of this process's own.
//
// On Linux credentials are a thread's (credentials(7)); glibc's setuid() and its like change all of a
// process's threads, the system calls behind them only the calling one. So each call below is made by a
// thread of its own that takes the peer's user, group and supplementary groups for file access (setfsuid(2),
// setfsgid(2), setgroups(2)), drops every capability, does it, and ends: nothing has to be given back, and no
// other thread is ever without its rights. Not by a child process: fork() copies the page tables of all
// guests' memory. Not by setresuid(2) either: a thread whose real user is the peer's could be killed by the
// peer, and the process with it.
#pragma once

#include <functional>
#include <string>

#include "loader/control/control_peer.h"

namespace migrx {

// Runs `action` with the peer's rights to files and returns when it is over; for root with this process's
// own. Empty: it ran. Otherwise why the rights cannot be taken (this process is not root, and the peer is
// another user), and `action` did not run. `action` must not throw. May be called by any thread; blocks for
// as long as `action` does.
[[nodiscard]] std::string run_as(const ControlPeer& peer, const std::function<void()>& action);

}  // namespace migrx

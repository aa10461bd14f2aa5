// Sockets in another process' network namespace.
#pragma once

#include <sys/types.h>

#include <string>

#include "numa/descriptor.h"

namespace migrx {

// /proc/PID/ns/net of that process, when it is another one than ours; an empty descriptor: it is ours.
// problem: it cannot be seen (needs root, or the process is gone).
[[nodiscard]] Descriptor network_namespace_of(pid_t process, std::string& problem);

// socket(2), non-blocking and close-on-exec, in the namespace that the descriptor names; -1: in ours. A
// socket stays in the namespace in which it was made. Only the calling thread enters that namespace, and it
// is back when this returns. Empty: errno says why (setns(2) needs CAP_SYS_ADMIN).
[[nodiscard]] Descriptor socket_in(int network_namespace, int family, int type, int protocol);

}  // namespace migrx

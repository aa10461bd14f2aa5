// When a receiver gives up, a small process stays. It has no guest memory; it holds the port and resets the
// source's connections (dataplane/reset_mode.h) until each peer has been told. The receiver itself gives out
// verdict, report, memory and exit status at once.
//
// The process is this program started anew (`migrx linger`), in a process session of its own: nothing of the
// receiver lives on in it, and no signal for the receiver's group reaches it. Its messages go to syslog.
#pragma once

#include <string>
#include <vector>

#include "loader/app/lost_record.h"

namespace migrx {

struct HostOptions;

// The number in that process of the socket it is announced by.
inline constexpr int kLingerSocket = 3;

// The ports of `options` and connections as Lifeline::connected() was told; no process goes on for longer
// than --linger.
[[nodiscard]] LostRecord record_of(const HostOptions& options, std::vector<LostConnection> lost);

// Starts that process and announces it in `folder` (runtime_folder.h). The port must be free. Returns a
// sentence for the operator, also when it could not be started.
[[nodiscard]] std::string start_lingering(const LostRecord& record, const std::string& folder);

}  // namespace migrx

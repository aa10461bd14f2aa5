// Fills a report from a session that has come to its end (or stands still: call when its
// workers have stopped).
#pragma once

#include "loader/app/progress.h"
#include "loader/app/report.h"
#include "loader/session/block_table.h"
#include "loader/session/session.h"
#include "loader/session/session_control.h"

namespace migrx {

// start_ns: zero of the time line, of the session's clock. loader_cpus: by worker index.
void report_session(const Session& session, const SessionControl& control, const BlockTable& blocks,
                    uint64_t start_ns, const std::vector<int>& loader_cpus, Report& report);

// Parts that the report of `migrx load` has too.
void report_blocks(const BlockTable& blocks, Report& report);
// User and system time of this process so far.
[[nodiscard]] double cpu_seconds();

// Times and channels as they are now, while workers run: counters and moments only, which have
// one writer each.
void sample_channels(const Session& session, uint64_t start_ns, Report& report);

// What the progress line needs, while workers run.
[[nodiscard]] ProgressSample sample_progress(const Session& session, const BlockTable& blocks, double now_s);

}  // namespace migrx

// Where a guest goes: a destination QEMU, or a file.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/job_options.h"
#include "loader/app/report.h"
#include "loader/app/signals.h"
#include "loader/destination/handoff_form.h"
#include "loader/ram/ram_block.h"
#include "loader/session/destination.h"
#include "numa/guest_memory.h"

namespace migrx {

// How the guest is handed over.
struct HandoffChoice {
  HandoffForm form = HandoffForm::plain;
  std::optional<pid_t> process;  // the destination QEMU; nullopt: who listens
  uint32_t source_channels = 0;  // multifd channels of the source
};
[[nodiscard]] HandoffChoice handoff_choice(const JobOptions& options, uint32_t source_channels);

// handoff: "unix:PATH" or "tcp:ADDRESS:PORT", checked; without it the device state goes into the directory
// `dump_blocks`, or nowhere. addresses: mr->addr by block name; see prepare_destination(). stall_ns: see
// DeviceStateLimits.
[[nodiscard]] std::unique_ptr<Destination> make_destination(const std::optional<std::string>& handoff,
                                                            const std::optional<std::string>& dump_blocks,
                                                            const std::vector<RamSpec>& ram,
                                                            const RamBlockList& blocks,
                                                            std::map<std::string, uint64_t> addresses,
                                                            uint64_t stall_ns, const HandoffChoice& choice);

// --qmp: sets the destination up, or only looks at what `ram` says when there is no --qmp. Returns the
// addresses for make_destination(); adds to the report's warnings. switchover_ack: on at the source. Throws
// SetupError.
[[nodiscard]] std::map<std::string, uint64_t> prepare_destination(const std::optional<std::string>& qmp,
                                                                  const std::optional<std::string>& handoff,
                                                                  const std::vector<RamSpec>& ram,
                                                                  const RamBlockList& blocks,
                                                                  bool switchover_ack, HandoffForm form,
                                                                  Report& report, const SignalWatch& signals);

// What is wrong with --handoff, --no-handoff and --qmp together. Empty: nothing.
[[nodiscard]] std::string check_destination_options(const std::optional<std::string>& handoff,
                                                    bool no_handoff, const std::optional<std::string>& qmp);

}  // namespace migrx

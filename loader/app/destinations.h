// Where a guest goes: a destination QEMU, or a file.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/guest_blocks.h"
#include "loader/app/interruption.h"
#include "loader/app/job_options.h"
#include "loader/app/report.h"
#include "loader/app/terminal.h"
#include "loader/destination/destination_setup.h"
#include "loader/destination/handoff_form.h"
#include "loader/destination/link_security.h"
#include "loader/destination/memory_refill.h"
#include "loader/destination/socket_address.h"
#include "loader/ram/ram_block.h"
#include "loader/session/destination.h"
#include "numa/guest_memory.h"

namespace migrx {

// Of --capability.
[[nodiscard]] SourceCapabilities source_capabilities(const std::vector<std::string>& names);

// How the guest is handed over.
struct HandoffChoice {
  HandoffForm form = HandoffForm::plain;
  std::optional<pid_t> process;  // the destination QEMU; nullopt: the process that listens
  uint32_t source_channels = 0;  // multifd channels of the source
  std::optional<SocketAccess> access;
  LinkSecurity* security = nullptr;  // nullptr: it is not encrypted; outlives the destination
  MemoryRefill* refill = nullptr;    // for a source that may switch to postcopy; outlives the destination
  bool memory_postponed = false;     // see DestinationSettings
  std::function<void()> on_postcopy{};
};
[[nodiscard]] HandoffChoice handoff_choice(const JobOptions& options, uint32_t source_channels,
                                           LinkSecurity* security);

// handoff: "unix:PATH" or "tcp:ADDRESS:PORT", checked; without it the device state goes into the directory
// `dump_blocks`, or nowhere. guest: outlives it. addresses: mr->addr by block name; see inspect_by_qmp().
// stall_ns: see DeviceStateLimits.
[[nodiscard]] std::unique_ptr<Destination> make_destination(const std::optional<std::string>& handoff,
                                                            const std::optional<std::string>& dump_blocks,
                                                            const GuestBlocks& guest,
                                                            std::map<std::string, uint64_t> addresses,
                                                            uint64_t stall_ns, HandoffChoice choice);

// --qmp: whether the destination can take the guest; asks only, and before a file of `ram` is opened for
// writing. Without --qmp: what `ram` says. tls: the hand-off is encrypted. Returns the addresses for
// make_destination(); adds to the report. Throws SetupError.
[[nodiscard]] std::map<std::string, uint64_t> inspect_by_qmp(const JobOptions& options,
                                                             const std::vector<RamSpec>& ram, bool tls,
                                                             Report& report, Terminal& terminal,
                                                             const Interruption& interruption);

// --qmp: from here on the destination waits for this migration and no other. Adds to the report's warnings.
// Throws SetupError.
void arm_by_qmp(const JobOptions& options, SourceCapabilities source, const GuestBlocks& guest,
                Report& report, Terminal& terminal, const Interruption& interruption);

// The guest is at the destination: what was turned on there for it, and would harm it later, is turned off.
// Adds to the report's warnings; nothing that happens here changes where the guest is.
void disarm_by_qmp(const JobOptions& options, Report& report);

// What is wrong with --handoff, --no-handoff, --qmp and those of handoff_tls.h together, or with the way to
// the address of --handoff. Empty: nothing. Some system calls.
[[nodiscard]] std::string check_destination_options(const JobOptions& options);

}  // namespace migrx

// Where a guest goes: a destination QEMU, or a file.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loader/ram/ram_block.h"
#include "loader/session/destination.h"
#include "numa/guest_memory.h"

namespace migrx {

// handoff: "unix:PATH", checked; without it the device state goes into the directory `dump_blocks`, or
// nowhere.
[[nodiscard]] std::unique_ptr<Destination> make_destination(const std::optional<std::string>& handoff,
                                                            const std::optional<std::string>& dump_blocks,
                                                            const std::vector<RamSpec>& ram,
                                                            const RamBlockList& blocks);

}  // namespace migrx

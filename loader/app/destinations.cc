#include "loader/app/destinations.h"

#include <map>
#include <utility>

#include "loader/handoff/destination_qemu.h"
#include "loader/handoff/device_state_file.h"

namespace migrx {

std::unique_ptr<Destination> make_destination(const std::optional<std::string>& handoff,
                                              const std::optional<std::string>& dump_blocks,
                                              const std::vector<RamSpec>& ram, const RamBlockList& blocks) {
  if (!handoff) return std::make_unique<DeviceStateFile>(dump_blocks ? *dump_blocks + "/device-state" : "");
  std::string path;
  (void)parse_unix_address(*handoff, path);
  std::map<std::string, uint64_t> addresses;
  for (const RamSpec& spec : ram)
    if (spec.addr) addresses[spec.id] = *spec.addr;
  return std::make_unique<DestinationQemu>(path, blocks, std::move(addresses));
}

}  // namespace migrx

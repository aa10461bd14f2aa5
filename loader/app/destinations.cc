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
  std::vector<SharedFile> files;
  for (const RamSpec& spec : ram) {
    if (spec.addr) addresses[spec.id] = *spec.addr;
    files.push_back({spec.id, spec.path, blocks.find(spec.id)->used_length()});
  }
  return std::make_unique<DestinationQemu>(path, blocks, std::move(addresses), std::move(files));
}

}  // namespace migrx

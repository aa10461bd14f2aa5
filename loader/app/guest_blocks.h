// Guest RAM for one session: the files of --ram, made ready before anybody may connect.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "loader/app/interruption.h"
#include "loader/app/report.h"
#include "loader/app/supervisor.h"
#include "loader/app/terminal.h"
#include "loader/destination/peer_memory.h"
#include "loader/session/block_table.h"
#include "numa/guest_memory.h"
#include "numa/memory_budget.h"
#include "numa/placement.h"

namespace migrx {

// The control group that pays for the memory, and the checks whether the memory is there.
struct MemorySettings {
  bool check = true;  // refuse what the host, or a control group, does not have
  std::string group;  // folder of the control group that pays; empty: that of the destination QEMU, or ours
  std::string runtime_folder;  // where receivers tell each other what they are about to take; empty: nowhere
};

class GuestBlocks {
 public:
  // Opens and claims the files; changes no byte of one that existed. handed_on: a destination QEMU gets
  // the guest, so one process besides this one may map the files; it has to prove that it waits before
  // a page is written. Throws SetupError; whatever was made is gone then, as it is when this object
  // goes without keep().
  GuestBlocks(const std::vector<RamSpec>& ram, uint64_t private_bytes_max, bool handed_on,
              const Lifeline& lifeline, const Interruption& interruption);
  ~GuestBlocks();
  GuestBlocks(const GuestBlocks&) = delete;
  GuestBlocks& operator=(const GuestBlocks&) = delete;

  // Looks whether the memory is there, then faults everything in, with all planned CPUs of each file's node
  // (all of them for files of no node), and shows progress; and some memory for blocks without a file. Throws
  // SetupError, also within some milliseconds of a signal.
  // postponed: the files are left to take_again().
  void prefault(const Placement& placement, const MemorySettings& settings, Terminal& terminal,
                const Interruption& interruption, bool postponed = false);
  // All memory of the files is taken, while no pages come (GuestMemory::take_again). emptied: by the
  // destination. group: MemorySettings::group. go_on is told of the bytes done. Empty: done; otherwise what
  // to do. Any one thread, while no worker writes.
  [[nodiscard]] std::string take_again(const Placement& placement, const std::string& group, bool emptied,
                                       const std::function<bool(uint64_t)>& go_on);
  // GuestMemory::give_up() for all files; some seconds for a large guest. Any one thread.
  void give_up() noexcept;
  // Adds to the report's blocks how the kernel holds their memory.
  void report(Report& report) const;

  [[nodiscard]] BlockTable& table() noexcept { return table_; }
  [[nodiscard]] const BlockTable& table() const noexcept { return table_; }
  // Where the files are mapped, in whole pages.
  [[nodiscard]] std::vector<std::span<std::byte>> mappings() const;
  // The blocks that lie in files, by the descriptors held here.
  [[nodiscard]] std::vector<SharedFile> shared_files() const;
  [[nodiscard]] uint64_t bytes() const noexcept;
  // Success: the files stay; or go, if `unlink` and they were made here.
  void keep(bool unlink);

 private:
  // The folder of the group that pays; `process`: whose limits count.
  [[nodiscard]] std::string payer(const std::string& wanted, std::string& process) const;
  [[nodiscard]] std::vector<MemoryNeed> needs() const;
  // Those that prepare a file of this memory.
  [[nodiscard]] static std::vector<CpuId> cpus_for(const GuestMemory& memory, const Placement& placement);

  const Lifeline& lifeline_;
  std::vector<std::unique_ptr<GuestMemory>> files_;
  std::vector<std::string> names_;    // of the blocks in them
  std::vector<bool> others_allowed_;  // in-use=allow
  BlockTable table_;
};

}  // namespace migrx

// Guest RAM for one session: the files of --ram, made ready before anybody may connect.
#pragma once

#include <memory>
#include <vector>

#include "loader/app/signals.h"
#include "loader/app/supervisor.h"
#include "loader/app/terminal.h"
#include "loader/session/block_table.h"
#include "numa/guest_memory.h"
#include "numa/placement.h"

namespace migrx {

class GuestBlocks {
 public:
  // Opens and claims the files; changes no byte of one that existed. handed_on: a destination QEMU gets the
  // guest, so one process besides this one may map the files; it has to prove that it waits before a page is
  // written. Throws SetupError; whatever was made is gone then, as it is when this object goes without
  // keep().
  GuestBlocks(const std::vector<RamSpec>& ram, uint64_t private_bytes_max, bool handed_on,
              const Lifeline& lifeline);
  ~GuestBlocks();
  GuestBlocks(const GuestBlocks&) = delete;
  GuestBlocks& operator=(const GuestBlocks&) = delete;

  // Faults everything in, with all planned CPUs of each file's node (all of them for files of no node), and
  // shows progress; and some memory for blocks without a file. Throws SetupError, also when a signal came.
  void prefault(const Placement& placement, Terminal& terminal, const SignalWatch& signals);

  [[nodiscard]] BlockTable& table() noexcept { return table_; }
  [[nodiscard]] uint64_t bytes() const noexcept;
  // Success: the files stay; or go, if `unlink` and they were made here.
  void keep(bool unlink);

 private:
  const Lifeline& lifeline_;
  std::vector<std::unique_ptr<GuestMemory>> files_;
  BlockTable table_;
};

}  // namespace migrx

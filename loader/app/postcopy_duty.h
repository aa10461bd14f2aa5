// What this host's side has to do when a source may switch to postcopy, and when it does: the destination
// QEMU empties the files at POSTCOPY_ADVISE, so their memory is taken anew; from the switch on the files are
// the destination's alone. docs/postcopy.md has the rules and what happens without each.
#pragma once

#include <cstdint>
#include <string>
#include <thread>

#include "loader/app/guest_blocks.h"
#include "loader/app/guest_refill.h"
#include "loader/app/terminal.h"

namespace migrx {

// Control thread.
class PostcopyDuty {
 public:
  // guest and placement must outlive it. group: MemorySettings::group.
  PostcopyDuty(GuestBlocks& guest, const Placement& placement, const std::string& group)
      : guest_(guest), refill_(guest, placement, group) {}
  ~PostcopyDuty() { let_go(); }
  PostcopyDuty(const PostcopyDuty&) = delete;
  PostcopyDuty& operator=(const PostcopyDuty&) = delete;

  [[nodiscard]] MemoryRefill& refill() noexcept { return refill_; }
  // The switch, before a byte of it has left: whatever becomes of this process, nobody removes the files.
  void begin(uint64_t now_ns);
  // Touches the guest no more: its memory is about to go. Waits for what is under way, some seconds for a
  // large guest.
  void let_go();
  // Gives the mapping up once that costs no downtime any more. Tells the operator of the switch.
  void look(uint64_t now_ns, Terminal& terminal);

 private:
  // The destination has its device state by then, and runs the guest. Until the mapping is given up nothing
  // touches it all the same: no channel takes pages any more.
  static constexpr uint64_t kAfterNs = 1'000'000'000;

  GuestBlocks& guest_;
  GuestRefill refill_;
  uint64_t begun_ns_ = 0;  // 0: not in postcopy
  bool told_ = false;
  std::thread giving_up_;
};

}  // namespace migrx

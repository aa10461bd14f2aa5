// What --qmp does, in two halves. Before anything of the host is touched it looks whether the destination
// QEMU can take the guest. When everything else is ready it makes that QEMU wait for what migrx will send.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "loader/destination/handoff_form.h"
#include "loader/destination/peer_memory.h"
#include "loader/destination/qmp_client.h"

namespace migrx {

// A RAM block that migrx loads into a file, as --ram names it.
struct SetupBlock {
  std::string idstr;
  std::string path;
  uint64_t bytes = 0;              // of the block
  int32_t node = -1;               // host node that migrx binds it to; -1: none
  std::optional<uint64_t> addr{};  // given by the operator
};

// What is on at the source, as far as migrx was told (--capability), and has to be on at the destination,
// too.
struct SourceCapabilities {
  bool switchover_ack = false;
  bool postcopy_ram = false;
  bool postcopy_preempt = false;
};

struct DestinationSetup {
  std::string problem;  // not empty: what is wrong at the destination, and what to change
  std::vector<std::string> warnings;
  std::map<std::string, uint64_t> addresses;  // mr->addr by block name, where the destination told
  std::string version;                        // QEMU's
};

// Asks, and changes nothing:
// 1. The destination must wait for a migration (-incoming defer), have none, and have tls-creds exactly when
//    the hand-off is encrypted (tls).
// 2. Every block's backend must be memory-backend-file,share=on on the very file, as large as the block, and
//    bound to the same host node. With x-ignore-shared no other shared file backend may be there, since QEMU
//    would ignore it too.
// 3. x-ignore-shared only: the blocks' mr->addr are asked for (HMP info mtree).
//
// Control thread; blocks for as long as QEMU takes to answer.
[[nodiscard]] DestinationSetup inspect_destination(QmpCommands& qmp, const std::vector<SetupBlock>& blocks,
                                                   HandoffForm form, bool tls);

// When everything else is ready. Fills problem, warnings and version.
// 1. The destination must still wait: time has passed since it was inspected. Where a path of `files` does
// not
//    lead to the file that is claimed any more, the destination must map the claimed one all the same.
// 2. x-ignore-shared is turned on or, in the plain form, off; multifd and what goes with it is turned off.
//    switchover-ack is set as at the source: then the source gets the destination's own acknowledgment. In
//    the plain form postcopy-ram and postcopy-preempt are turned on when the source is said to have them, and
//    stay as they are when not: the source decides, and nothing is lost by a destination that could.
// 3. migrate-incoming with `uri` comes last, so that a refusal leaves the destination as it was, apart from
//    its capabilities.
//
// Control thread; blocks for as long as QEMU takes to answer.
[[nodiscard]] DestinationSetup arm_destination(QmpCommands& qmp, const std::string& uri,
                                               SourceCapabilities source, HandoffForm form,
                                               const std::vector<SharedFile>& files);

// When the guest is there: turns x-ignore-shared off, with which the guest's next migration would fail, and
// its next save succeed without its RAM. Empty: done; otherwise what QEMU says.
[[nodiscard]] std::string disarm_destination(QmpCommands& qmp);

}  // namespace migrx

// Hugepages for packet buffers: how many are really free, and a word to the host's other receivers until ours
// are taken.
//
// Between DPDK's start and the last pool passes half a second. Two receivers that start together would both
// count the same free pages, and the second would end with an error instead of using ordinary pages.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "numa/ids.h"
#include "numa/memory_budget.h"
#include "numa/memory_promise.h"

namespace migrx {

// Control thread.
class PacketMemory {
 public:
  // wanted: bytes by node (kAnyNode: wherever DPDK likes). folder: the runtime folder, where receivers tell
  // each other what they are about to take; empty: nobody is told. facts, group: of this process
  // (memory_facts(), memory_group_of()).
  PacketMemory(const std::string& folder, const std::map<NodeId, uint64_t>& wanted, const MemoryFacts& facts,
               std::string group);

  // Bytes of free hugepages that no mapping has reserved, no other receiver is about to take, and our control
  // groups let us have.
  [[nodiscard]] uint64_t free_bytes() const noexcept { return free_bytes_; }
  // So much of what was wanted is there, and is no longer counted as free.
  void taken(NodeId node, uint64_t bytes) noexcept;
  // No hugepages will be taken.
  void give_up() noexcept { promise_.reset(); }

 private:
  uint64_t free_bytes_ = 0;
  uint64_t page_bytes_ = 0;
  PromisedMemory memory_;
  std::unique_ptr<MemoryPromise> promise_;
};

}  // namespace migrx

// Whether a host has the memory that guests are about to take, before the first page is touched. Where it has
// not, the kernel would end some process, or raise SIGBUS, in the middle.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "numa/control_group.h"
#include "numa/host_files.h"
#include "numa/ids.h"
#include "numa/memory_promise.h"

namespace migrx {

// Memory of one file that is not there yet.
struct MemoryNeed {
  std::string path;
  uint64_t bytes = 0;
  uint64_t page_bytes = 4096;  // above 4096: hugepages
  NodeId node = kAnyNode;
  bool reserved = false;                     // hugepages: the mapping has reserved them already
  std::string file_system;                   // needs with the same name share it
  std::optional<uint64_t> file_system_free;  // bytes; nothing: without a limit
};

struct HugepagePool {
  NodeId node = kAnyNode;  // kAnyNode: the whole host
  uint64_t page_bytes = 0;
  uint64_t total = 0;
  uint64_t free = 0;
  uint64_t reserved = 0;  // promised to mappings and not touched yet; the kernel tells it for the host only
};

struct MemoryFacts {
  std::optional<uint64_t> available;  // MemAvailable, bytes
  uint64_t total = 0;
  std::vector<HugepagePool> pools;
  std::set<NodeId> allowed;   // nodes that the cpuset lets us use; empty: all
  ControlGroupLimits groups;  // of whoever pays
  PromisedBytes promised;     // what other jobs have yet to take

  [[nodiscard]] const HugepagePool* pool(NodeId node, uint64_t page_bytes) const noexcept;
};

// process: "self", or the PID of the process in whose control group the memory is taken.
[[nodiscard]] MemoryFacts memory_facts(const HostFiles& files, const std::string& process);

// Bytes of free hugepages of one size, or of all, that no mapping has reserved and the control groups allow.
[[nodiscard]] uint64_t free_hugepage_bytes(const MemoryFacts& facts, uint64_t page_bytes);
[[nodiscard]] uint64_t free_hugepage_bytes(const MemoryFacts& facts);

// private_bytes: memory of this process beside the files. Empty: there is enough; otherwise what is short,
// with the figures, and what to do.
[[nodiscard]] std::string memory_problem(const std::vector<MemoryNeed>& needs, uint64_t private_bytes,
                                         const MemoryFacts& facts);

// What a job that takes all of it has yet to take; entries of nothing are kept. group: who pays for it.
[[nodiscard]] PromisedMemory promise_of(const std::vector<MemoryNeed>& needs, const std::string& group);

// How many of `wanted` pages are not free on the node (kAnyNode: on the host), and the command
// that makes them.
[[nodiscard]] std::string hugepages_missing(const MemoryFacts& facts, uint64_t page_bytes, uint64_t wanted,
                                            NodeId node);

// "4.0 GiB", "512 MiB".
[[nodiscard]] std::string size_text(uint64_t bytes);

}  // namespace migrx

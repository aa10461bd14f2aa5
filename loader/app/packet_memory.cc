#include "loader/app/packet_memory.h"

#include <algorithm>
#include <utility>

namespace migrx {

PacketMemory::PacketMemory(const std::string& folder, const std::map<NodeId, uint64_t>& wanted,
                           const MemoryFacts& facts, std::string group)
    : free_bytes_(free_hugepage_bytes(facts)) {
  for (const HugepagePool& pool : facts.pools) {
    if (pool.node != kAnyNode || free_hugepage_bytes(facts, pool.page_bytes) == 0) continue;
    // DPDK begins with the smallest pages.
    if (page_bytes_ == 0 || pool.page_bytes < page_bytes_) page_bytes_ = pool.page_bytes;
  }
  if (page_bytes_ == 0) return;
  memory_.group = std::move(group);
  for (const auto& [node, bytes] : wanted) memory_.hugepages[{node, page_bytes_}] = bytes;
  uint64_t others = 0;
  std::string unused;
  promise_ = MemoryPromise::make(
      folder, memory_,
      [&others](const PromisedBytes& promised) {
        for (const PromisedMemory& job : promised.jobs)
          for (const auto& [where, bytes] : job.hugepages) others += bytes;
        return std::string();
      },
      unused);
  free_bytes_ -= std::min(free_bytes_, others);
}

void PacketMemory::taken(NodeId node, uint64_t bytes) noexcept {
  if (promise_ == nullptr) return;
  const auto left = memory_.hugepages.find({node, page_bytes_});
  if (left == memory_.hugepages.end()) return;
  left->second -= std::min(left->second, bytes);
  promise_->update(memory_);
}

}  // namespace migrx

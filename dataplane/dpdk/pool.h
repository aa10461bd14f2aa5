// Packet buffers: DPDK mempools of mbufs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "dataplane/sizing.h"
#include "numa/ids.h"

struct rte_mempool;

namespace migrx {

// TcpConfig::room_behind of mbufs. Hot when segments are small and buffers short; any thread.
[[nodiscard]] uint32_t room_behind(const void* buffer, const std::byte* end) noexcept;

// A pool of mbufs on one node. Buffers may be freed by any registered thread; allocation is meant for one.
// Must outlive the ports whose queues use it.
class BufferPool {
 public:
  // Throws DpdkError, saying how much memory was asked for. name: at most 24 characters, unique.
  BufferPool(const std::string& name, uint32_t buffers, uint32_t buffer_bytes, NodeId node);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  [[nodiscard]] uint32_t buffers() const noexcept { return buffers_; }
  [[nodiscard]] uint32_t buffer_bytes() const noexcept { return buffer_bytes_; }
  [[nodiscard]] NodeId node() const noexcept { return node_; }
  // Not for the hot path.
  [[nodiscard]] uint32_t available() const noexcept;
  [[nodiscard]] rte_mempool* raw() const noexcept { return pool_; }
  // For the end of a process: the memory stays EAL's, and goes with it. DPDK would write zeros over all of
  // it, untouched pages too, before it took it back: a second for some GiB, while others wait for an exit
  // status.
  void leave_to_eal() noexcept { pool_ = nullptr; }
  // Memory that a pool of this shape takes, about.
  [[nodiscard]] static uint64_t memory_bytes(uint32_t buffers, uint32_t buffer_bytes) noexcept;

 private:
  const uint32_t buffers_;
  const uint32_t buffer_bytes_;
  const NodeId node_;  // as asked for
  rte_mempool* pool_ = nullptr;
};

}  // namespace migrx

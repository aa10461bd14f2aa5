// Packet buffers: DPDK mempools of mbufs, and how many of which size are needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "numa/ids.h"

struct rte_mempool;

namespace migrx {

// Bytes that a received frame can have beyond the link's MTU: Ethernet header and two VLAN tags. (The frame
// check sequence is stripped.)
inline constexpr uint32_t kLinkOverheadBytes = 14 + 2 * 4;

// Room per buffer so that a full frame needs one, or with a huge MTU few. A multiple of 1 KiB: some devices
// only know such sizes. At most 16 KiB: a tiny segment occupies as much. MTU 1500: 2048; 9000: 9216.
[[nodiscard]] uint32_t buffer_bytes_for_mtu(uint32_t mtu) noexcept;
// Packet buffers that a full frame occupies.
[[nodiscard]] uint32_t buffers_per_frame(uint32_t mtu, uint32_t buffer_bytes) noexcept;

// What one poll core's pool must be able to hold at the same time.
struct PoolNeeds {
  uint32_t rx_descriptors = 0;  // of all its queues; a device keeps a buffer in each
  uint32_t mtu = 1500;
  uint32_t buffer_bytes = 2048;
  uint32_t connections_max = 0;
  uint32_t buffers_per_connection = 0;  // Handoff slots, or tcp.buffer_quota
  bool several_cores = false;           // frames may wait in the rings of the mesh
  uint32_t cores = 1;
};
// Fewer could let a channel that waits at a barrier starve the one it waits for.
[[nodiscard]] uint32_t pool_buffers_min(const PoolNeeds& needs) noexcept;

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
  // Memory that a pool of this shape takes, about.
  [[nodiscard]] static uint64_t memory_bytes(uint32_t buffers, uint32_t buffer_bytes) noexcept;

 private:
  const uint32_t buffers_;
  const uint32_t buffer_bytes_;
  const NodeId node_;  // as asked for
  rte_mempool* pool_ = nullptr;
};

}  // namespace migrx

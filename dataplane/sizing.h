// Computes how many packet buffers poll cores need, from the descriptors that their ports really have. Pure.
#pragma once

#include <cstdint>
#include <vector>

namespace migrx {

// Bytes that a received frame can have beyond the link's MTU: Ethernet header and two VLAN tags. (The frame
// check sequence is stripped.)
inline constexpr uint32_t kLinkOverheadBytes = 14 + 2 * 4;
// Buffers that the pool keeps at hand per thread, apart from the ring shared by all. DPDK lets half as many
// again gather there.
inline constexpr uint32_t kPoolCacheBuffers = 256;
// Room for a frame that we send: ACKs, messages of the return path, fragments of echo replies.
inline constexpr uint32_t kTxBufferBytes = 2048;

// Room per buffer so that a full frame needs one, or with a huge MTU few. A multiple of 1 KiB: some devices
// only know such sizes. At most 16 KiB: a tiny segment occupies as much. MTU 1500: 2048; 9000: 9216.
[[nodiscard]] uint32_t buffer_bytes_for_mtu(uint32_t mtu) noexcept;
// Packet buffers that a full frame occupies.
[[nodiscard]] uint32_t buffers_per_frame(uint32_t mtu, uint32_t buffer_bytes) noexcept;

// Of one queue pair, as the device has adjusted what it was asked for.
struct QueueDescriptors {
  uint32_t rx = 0;
  uint32_t tx = 0;
};

struct SizingNeeds {
  std::vector<QueueDescriptors> ports;  // each has one queue pair per poll core
  uint32_t mtu = 1500;
  uint32_t buffer_bytes = 2048;
  uint32_t connections_max = 0;         // of each poll core
  uint32_t buffers_per_connection = 0;  // Handoff slots, or tcp.buffer_quota
  uint32_t cores = 1;                   // poll cores; frames may wait in the rings between them
};

// Of one poll core's two pools.
struct DataplaneSizing {
  // Fewer could let a channel that waits at a barrier starve the one it waits for.
  uint32_t rx_buffers = 0;
  // Each port can have its share at the same time. A driver gives sent buffers back only when it is given
  // more to send and its ring is nearly full, so that an idle port keeps them for ever; with fewer, that port
  // could leave none for the ACKs of another.
  uint32_t tx_buffers = 0;
};
[[nodiscard]] DataplaneSizing size_dataplane(const SizingNeeds& needs) noexcept;

}  // namespace migrx

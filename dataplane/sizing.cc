#include "dataplane/sizing.h"

#include <algorithm>

#include "dataplane/owner_table.h"
#include "dataplane/port.h"

namespace migrx {

uint32_t buffer_bytes_for_mtu(uint32_t mtu) noexcept {
  constexpr uint32_t kStep = 1024;
  const uint32_t frame = mtu + kLinkOverheadBytes;
  return std::clamp((frame + kStep - 1) / kStep * kStep, 2 * kStep, 16 * kStep);
}

uint32_t buffers_per_frame(uint32_t mtu, uint32_t buffer_bytes) noexcept {
  return (mtu + kLinkOverheadBytes + buffer_bytes - 1) / buffer_bytes;
}

DataplaneSizing size_dataplane(const SizingNeeds& needs) noexcept {
  const uint32_t per_frame = buffers_per_frame(needs.mtu, needs.buffer_bytes);
  // A burst being looked at, and what the core has gathered to free in bulk.
  const uint32_t in_hand = kBurst * per_frame + 256;
  // Buffers in the caches of threads are free but not at hand for the one that needs them.
  const uint32_t in_cache = kPoolCacheBuffers * 3 / 2;
  const uint32_t in_rings = (needs.cores - 1) * PollMesh::kRingFrames * per_frame;
  DataplaneSizing sizing;
  sizing.rx_buffers =
      in_hand + in_cache * needs.cores + in_rings + needs.connections_max * needs.buffers_per_connection;
  sizing.tx_buffers = in_cache;
  for (const QueueDescriptors& port : needs.ports) {
    sizing.rx_buffers += port.rx * per_frame;
    // In the device; queued for it; being filled.
    sizing.tx_buffers += port.tx + kTxFramesMax + 1;
  }
  return sizing;
}

}  // namespace migrx

// What a poll core sees of a network port: one rx/tx queue pair. dataplane/dpdk implements it over DPDK;
// tests, the simulation and benches implement it over memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/handoff/handoff.h"
#include "dataplane/wire/address.h"

namespace migrx {

// What the port says about a checksum. Only `good` spares the software check.
enum class ChecksumState : uint8_t { unknown, good, bad };

// A received frame: one packet buffer, or a chain of them. Owns them until given to free_bulk() or unchain().
struct Frame {
  void* buffer = nullptr;           // the first packet buffer
  const std::byte* data = nullptr;  // its bytes, from the Ethernet header on
  uint32_t data_len = 0;            // of these, in the first buffer
  uint32_t frame_len = 0;           // in the whole chain, padding included
  uint16_t nb_segs = 1;             // packet buffers
  ChecksumState ip_checksum = ChecksumState::unknown;
  ChecksumState l4_checksum = ChecksumState::unknown;
};
static_assert(sizeof(Frame) == 32);

// A frame to be sent; `data` has room for `capacity` bytes from the Ethernet header on.
struct TxFrame {
  void* buffer = nullptr;
  std::byte* data = nullptr;
  uint32_t capacity = 0;
};

// Most packet buffers in one chain: 64 KiB in buffers of 1 KiB. Longer chains are dropped by their poll core.
inline constexpr uint32_t kFrameSegmentsMax = 64;
// Most frames that wait between two flushes of a tx queue.
inline constexpr uint32_t kTxFramesMax = 128;
// Frames asked for by one rx_burst. MIGRX_BENCH_BURST is defined where bench/ compiles the data path once
// more, to measure another burst.
#ifdef MIGRX_BENCH_BURST
inline constexpr uint32_t kBurst = MIGRX_BENCH_BURST;
#else
inline constexpr uint32_t kBurst = 32;
#endif

// Called by the thread of its poll core only, except where said. Virtual calls are paid per burst, or by
// frames that are rare (chains) or few (ACKs: at most one per connection and burst).
//
// All queues of one poll core share one pool of packet buffers: any of them may free a buffer that another
// received.
class PortQueue {
 public:
  virtual ~PortQueue() = default;

  // Stores at most out.size() received frames; returns how many. out.size() <= kBurst.
  virtual uint32_t rx_burst(std::span<Frame> out) noexcept = 0;

  // Takes a chain apart: one slice per packet buffer, in order, holding all its bytes; each buffer can be
  // freed on its own afterwards. Returns frame.nb_segs, or 0 when `out` is smaller, and then nothing has
  // changed.
  virtual uint32_t unchain(const Frame& frame, std::span<Slice> out) noexcept = 0;

  // Frees frames (whole chains, by their first buffer) and unchained buffers alike. No element is nullptr.
  virtual void free_bulk(std::span<void* const> buffers) noexcept = 0;

  // Makes a frame that another poll core's queue received this core's own: copies it into buffers of this
  // core's pool and frees the other's. False: no buffers here; the frame has been freed all the same. Why a
  // copy: a connection's buffers are reserved in its own core's pool. If it could hold another core's, a
  // channel parked at a barrier could drain that pool and starve the very channel it waits for.
  virtual bool adopt(const Frame& foreign, Frame& own) noexcept = 0;

  // A frame to fill, however long it takes; must be followed by tx_commit() before the next tx_alloc(). Its
  // capacity is no more than the link may carry. False: no buffer or no room in the queue now.
  virtual bool tx_alloc(TxFrame& out) noexcept = 0;
  // Queues the frame that tx_alloc() gave: `length` bytes (padded by the port where the link wants it); 0:
  // gives the buffer back unsent.
  virtual void tx_commit(uint32_t length) noexcept = 0;
  // Sends what is queued; once per burst. Returns how many frames were sent; the others are dropped.
  virtual uint32_t tx_flush() noexcept = 0;
  // As tx_flush(), but what the device does not take now stays queued, in order. As it is here only for ports
  // that take everything.
  virtual uint32_t tx_push() noexcept { return tx_flush(); }

  // Constant after start; any thread.
  [[nodiscard]] virtual EthernetAddress mac() const noexcept = 0;
  // Room for a frame's bytes in one packet buffer.
  [[nodiscard]] virtual uint32_t buffer_bytes() const noexcept = 0;

  // Any thread; not for the hot path (a DPDK pool adds up all its caches).
  [[nodiscard]] virtual uint32_t buffers_total() const noexcept = 0;
  [[nodiscard]] virtual uint32_t buffers_available() const noexcept = 0;
};

}  // namespace migrx

// What the poll cores of one process know of each other: who owns which tuple, and rings for frames that
// arrived on another core's queue.
//
// A device spreads flows over queues, but not always to the same one: af_packet rolls over to the next queue
// when one is full, and redirection tables are changed while packets are under way. A core that does not know
// a tuple asks the owner table; only a tuple nobody owns is answered with RST.
//
//   queue 1 ─▶ core 1 ── not mine ──▶ OwnerTable ── core 0's ──▶ ring 1→0 ──▶ core 0, which copies the frame
//                                                                            into a buffer of its own pool
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/handoff/spsc_ring.h"
#include "dataplane/port.h"
#include "dataplane/wire/address.h"

namespace migrx {

// Read by every core, rarely; written when a handshake begins and when a connection ends. Lock-free.
//
// A tuple may be stored only within kWindow entries of its hash, and a look-up reads all of them: no chains,
// no tombstones, and two writers meet only in a compare-and-swap. Entries hold 54 bits of the keyed hash, not
// the tuple: should two tuples share them, a frame goes to a core that does not know it either and is
// answered there. Relaxed order suffices: an entry is one word and refers to nothing.
class OwnerTable {
 public:
  static constexpr uint32_t kNobody = UINT32_MAX;
  static constexpr uint32_t kCoresMax = 255;

  // connections_max: of all cores together. Allocates 8 entries for each.
  OwnerTable(uint32_t connections_max, uint64_t seed);

  // A handshake began on `core`. Such entries give way to connections and to newer ones: a SYN flood fills
  // the table with them and displaces nothing else.
  void offer(const FourTuple& tuple, uint32_t core) noexcept;
  // `core` owns the connection. False: no room near the hash; frames that arrive elsewhere will be refused.
  bool claim(const FourTuple& tuple, uint32_t core) noexcept;
  // `core` gives the tuple up, connection or handshake.
  void release(const FourTuple& tuple, uint32_t core) noexcept;
  // The core that owns the tuple, or kNobody.
  [[nodiscard]] uint32_t find(const FourTuple& tuple) const noexcept;

 private:
  static constexpr uint32_t kWindow = 16;  // two cache lines
  // Entry: hash (54 bits, at the top), 1 bit: connection, 9 bits: core + 1. 0: empty.
  static constexpr uint64_t kConnection = 1U << 9;
  static constexpr uint64_t kCoreMask = kConnection - 1;
  static constexpr uint64_t kHashMask = ~uint64_t{0} << 10;

  [[nodiscard]] std::atomic<uint64_t>& at(uint64_t hash, uint32_t i) const noexcept {
    return entries_[(static_cast<uint32_t>(hash) + i) & mask_];
  }
  const uint32_t mask_;
  const uint64_t seed_;
  const std::unique_ptr<std::atomic<uint64_t>[]> entries_;
};

// Shared by all poll cores of a process; must outlive them.
class PollMesh {
 public:
  // A frame on its way to its owner, with the index of the port it came in by.
  struct Forwarded {
    Frame frame;
    uint32_t port = 0;
  };
  // What one core heard of a neighbour's MAC address and every core has to know.
  struct Neighbour {
    IpAddress ip;
    EthernetAddress mac;
    uint32_t port = 0;
  };
  static constexpr uint32_t kRingNeighbours = 64;
  // Frames that may wait in each ring; more are dropped and counted, and TCP repairs it. Part of the minimum
  // pool.
  static constexpr uint32_t kRingFrames = 128;

  PollMesh(uint32_t cores, uint32_t connections_max, uint64_t seed);

  [[nodiscard]] uint32_t cores() const noexcept { return cores_; }
  [[nodiscard]] OwnerTable& owners() noexcept { return owners_; }
  // Any core. Until then handshakes may live only in cookies that some core gave out
  // (TcpListener::cookies_in_flight_until_ns()). Relaxed order is enough: a core that hears of it too late
  // sends a RST that it would have sent without the mesh.
  [[nodiscard]] uint64_t cookies_in_flight_until_ns() const noexcept {
    return cookies_in_flight_until_ns_.load(std::memory_order_relaxed);
  }
  void set_cookies_in_flight_until_ns(uint64_t until_ns) noexcept {
    if (until_ns > cookies_in_flight_until_ns())
      cookies_in_flight_until_ns_.store(until_ns, std::memory_order_relaxed);
  }
  // Producer: core `from`. Consumer: core `to`.
  [[nodiscard]] SpscRing<Forwarded>& ring(uint32_t from, uint32_t to) noexcept {
    return *rings_[from * cores_ + to];
  }
  // Likewise. What finds no room is lost: the peer's next segment says the same.
  [[nodiscard]] SpscRing<Neighbour>& neighbours(uint32_t from, uint32_t to) noexcept {
    return *neighbours_[from * cores_ + to];
  }

 private:
  const uint32_t cores_;
  OwnerTable owners_;
  std::atomic<uint64_t> cookies_in_flight_until_ns_{0};
  std::vector<std::unique_ptr<SpscRing<Forwarded>>> rings_;
  std::vector<std::unique_ptr<SpscRing<Neighbour>>> neighbours_;
};

}  // namespace migrx

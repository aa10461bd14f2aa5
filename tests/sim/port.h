// The network port of the simulated receiver: a queue pair over a bounded pool of packet buffers that knows
// where each buffer is. Freed buffers are overwritten, so that whoever still reads one is found out.
#pragma once

#include <array>
#include <deque>
#include <vector>

#include "dataplane/port.h"
#include "tests/dataplane/memory_queue.h"
#include "tests/sim/link.h"

namespace migrx::sim {

struct PortOptions {
  uint32_t rx_descriptors = 256;  // frames that may wait; more are lost, as at a NIC
  uint32_t tx_descriptors = 256;
  bool checksum_offload = false;  // the port tells good from bad
  double tx_fails = 0;            // chance that no buffer is there for a frame to be sent
};

class Port final : public PortQueue {
 public:
  Port(const PortOptions& options, testing::MemoryPool& pool, EthernetAddress mac, Random random)
      : options_(options), pool_(pool), mac_(mac), random_(random) {}

  // ---- The wire's side.
  [[nodiscard]] bool has_room() const noexcept { return incoming_.size() < options_.rx_descriptors; }
  void arrive(Packet packet, bool damaged) {
    if (!has_room()) {
      ++rx_missed;
      return;
    }
    incoming_.push_back({std::move(packet), damaged});
  }
  std::vector<Packet> sent;
  uint64_t rx_missed = 0;
  uint64_t rx_no_buffer = 0;

  // ---- PortQueue
  uint32_t rx_burst(std::span<Frame> out) noexcept override;
  uint32_t unchain(const Frame& frame, std::span<Slice> out) noexcept override;
  void free_bulk(std::span<void* const> buffers) noexcept override;
  bool adopt(const Frame& foreign, Frame& own) noexcept override;
  bool tx_alloc(TxFrame& out) noexcept override;
  void tx_commit(uint32_t length) noexcept override;
  uint32_t tx_flush() noexcept override;
  [[nodiscard]] EthernetAddress mac() const noexcept override { return mac_; }
  [[nodiscard]] uint32_t buffer_bytes() const noexcept override { return pool_.buffer_bytes(); }
  [[nodiscard]] uint32_t buffers_total() const noexcept override { return pool_.total(); }
  [[nodiscard]] uint32_t buffers_available() const noexcept override { return pool_.available(); }

 private:
  struct Arrival {
    Packet packet;
    bool damaged;
  };
  const PortOptions options_;
  testing::MemoryPool& pool_;
  const EthernetAddress mac_;
  Random random_;
  std::deque<Arrival> incoming_;
  std::array<std::byte, 2048> tx_{};
  std::vector<Packet> queued_;
};

}  // namespace migrx::sim

// One rx/tx queue pair of a DPDK port.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/dpdk/pool.h"
#include "dataplane/port.h"

struct rte_mbuf;

namespace migrx {

class DpdkQueue final : public PortQueue {
 public:
  // rx_pool: of the poll core; tx_pool: for what it sends. Both outlive the queue.
  DpdkQueue(uint16_t port_id, uint16_t queue_id, EthernetAddress mac, BufferPool& rx_pool,
            BufferPool& tx_pool)
      : port_id_(port_id), queue_id_(queue_id), mac_(mac), rx_pool_(rx_pool), tx_pool_(tx_pool) {}

  uint32_t rx_burst(std::span<Frame> out) noexcept override;
  uint32_t unchain(const Frame& frame, std::span<Slice> out) noexcept override;
  void free_bulk(std::span<void* const> buffers) noexcept override;
  bool adopt(const Frame& foreign, Frame& own) noexcept override;
  bool tx_alloc(TxFrame& out) noexcept override;
  void tx_commit(uint32_t length) noexcept override;
  uint32_t tx_flush() noexcept override;
  uint32_t tx_push() noexcept override;

  [[nodiscard]] EthernetAddress mac() const noexcept override { return mac_; }
  [[nodiscard]] uint32_t buffer_bytes() const noexcept override { return rx_pool_.buffer_bytes(); }
  [[nodiscard]] uint32_t buffers_total() const noexcept override { return rx_pool_.buffers(); }
  [[nodiscard]] uint32_t buffers_available() const noexcept override { return rx_pool_.available(); }

 private:
  const uint16_t port_id_;
  const uint16_t queue_id_;
  const EthernetAddress mac_;
  BufferPool& rx_pool_;
  BufferPool& tx_pool_;
  rte_mbuf* filling_ = nullptr;
  uint16_t tx_count_ = 0;
  std::array<rte_mbuf*, kTxFramesMax> tx_{};
};

}  // namespace migrx

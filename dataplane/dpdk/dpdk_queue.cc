#include "dataplane/dpdk/dpdk_queue.h"

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cstring>

namespace migrx {
namespace {

// Ethernet's shortest frame without its frame check sequence (IEEE 802.3 section 3.2.8). Not every device
// pads.
constexpr uint32_t kFrameBytesMin = 60;

// 0 and 3 of DPDK's two bits: unknown, and "none": the checksum field is not right but the bytes are vouched
// for, as frames that never left the machine are.
ChecksumState ip_state(uint64_t flags) noexcept {
  switch (flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) {
    case RTE_MBUF_F_RX_IP_CKSUM_GOOD:
    case RTE_MBUF_F_RX_IP_CKSUM_NONE:
      return ChecksumState::good;
    case RTE_MBUF_F_RX_IP_CKSUM_BAD:
      return ChecksumState::bad;
    default:
      return ChecksumState::unknown;
  }
}
ChecksumState l4_state(uint64_t flags) noexcept {
  switch (flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) {
    case RTE_MBUF_F_RX_L4_CKSUM_GOOD:
    case RTE_MBUF_F_RX_L4_CKSUM_NONE:
      return ChecksumState::good;
    case RTE_MBUF_F_RX_L4_CKSUM_BAD:
      return ChecksumState::bad;
    default:
      return ChecksumState::unknown;
  }
}

void to_frame(rte_mbuf* mbuf, Frame& out) noexcept {
  out.buffer = mbuf;
  out.data = rte_pktmbuf_mtod(mbuf, const std::byte*);
  out.data_len = mbuf->data_len;
  out.nb_segs = mbuf->nb_segs;
  // A single buffer's length is known from the buffer; a device has no say in it.
  out.frame_len = mbuf->nb_segs == 1 ? mbuf->data_len : mbuf->pkt_len;
  out.ip_checksum = ip_state(mbuf->ol_flags);
  out.l4_checksum = l4_state(mbuf->ol_flags);
}

}  // namespace

uint32_t DpdkQueue::rx_burst(std::span<Frame> out) noexcept {
  std::array<rte_mbuf*, kBurst> mbufs;
  const uint16_t wanted = static_cast<uint16_t>(std::min<std::size_t>(out.size(), kBurst));
  const uint16_t count = rte_eth_rx_burst(port_id_, queue_id_, mbufs.data(), wanted);
  for (uint16_t i = 0; i < count; ++i) to_frame(mbufs[i], out[i]);
  return count;
}

uint32_t DpdkQueue::unchain(const Frame& frame, std::span<Slice> out) noexcept {
  rte_mbuf* mbuf = static_cast<rte_mbuf*>(frame.buffer);
  if (mbuf->nb_segs > out.size()) return 0;
  uint32_t count = 0;
  // By nb_segs and by `next`: a driver that gets one of them wrong must not lead us out of the chain.
  for (const uint32_t segments = mbuf->nb_segs; mbuf != nullptr && count < segments; ++count) {
    rte_mbuf* const next = mbuf->next;
    out[count] = {rte_pktmbuf_mtod(mbuf, const std::byte*), mbuf, mbuf->data_len, StreamEnd::none};
    mbuf->next = nullptr;
    mbuf->nb_segs = 1;
    mbuf->pkt_len = mbuf->data_len;
    mbuf = next;
  }
  return count;
}

void DpdkQueue::free_bulk(std::span<void* const> buffers) noexcept {
  // rte_pktmbuf_free_bulk() gathers runs of one pool and returns each with one call.
  rte_pktmbuf_free_bulk(reinterpret_cast<rte_mbuf**>(const_cast<void**>(buffers.data())),
                        static_cast<unsigned>(buffers.size()));
}

bool DpdkQueue::adopt(const Frame& foreign, Frame& own) noexcept {
  rte_mbuf* const theirs = static_cast<rte_mbuf*>(foreign.buffer);
  rte_mbuf* const copy = rte_pktmbuf_copy(theirs, rx_pool_.raw(), 0, UINT32_MAX);
  rte_pktmbuf_free(theirs);
  if (copy == nullptr) return false;
  to_frame(copy, own);
  return true;
}

bool DpdkQueue::tx_alloc(TxFrame& out) noexcept {
  if (tx_count_ == kTxFramesMax) return false;
  filling_ = rte_pktmbuf_alloc(tx_pool_.raw());
  if (filling_ == nullptr) return false;
  out = {filling_, rte_pktmbuf_mtod(filling_, std::byte*), tx_pool_.buffer_bytes()};
  return true;
}

void DpdkQueue::tx_commit(uint32_t length) noexcept {
  if (length == 0) {
    rte_pktmbuf_free(filling_);
    return;
  }
  if (length < kFrameBytesMin) {
    std::memset(rte_pktmbuf_mtod_offset(filling_, std::byte*, length), 0, kFrameBytesMin - length);
    length = kFrameBytesMin;
  }
  filling_->data_len = static_cast<uint16_t>(length);
  filling_->pkt_len = length;
  tx_[tx_count_++] = filling_;
}

uint32_t DpdkQueue::tx_flush() noexcept {
  if (tx_count_ == 0) return 0;
  const uint16_t sent = rte_eth_tx_burst(port_id_, queue_id_, tx_.data(), tx_count_);
  // A full tx queue: TCP will say it again.
  if (sent < tx_count_) rte_pktmbuf_free_bulk(tx_.data() + sent, static_cast<unsigned>(tx_count_ - sent));
  tx_count_ = 0;
  return sent;
}

uint32_t DpdkQueue::tx_push() noexcept {
  if (tx_count_ == 0) return 0;
  const uint16_t sent = rte_eth_tx_burst(port_id_, queue_id_, tx_.data(), tx_count_);
  std::copy(tx_.begin() + sent, tx_.begin() + tx_count_, tx_.begin());
  tx_count_ = static_cast<uint16_t>(tx_count_ - sent);
  return sent;
}

}  // namespace migrx

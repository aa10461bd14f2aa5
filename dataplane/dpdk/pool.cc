#include "dataplane/dpdk/pool.h"

#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <algorithm>

#include "dataplane/dpdk/eal.h"

namespace migrx {
namespace {

// rte_mempool_create(): a cache may hold 1.5 times its size before it is flushed, and it must fit into the
// pool so.
uint32_t cache_for(uint32_t buffers) noexcept {
  return std::min(kPoolCacheBuffers, buffers * 2 / 3);
}

}  // namespace

uint32_t room_behind(const void* buffer, const std::byte* end) noexcept {
  const auto* const mbuf = static_cast<const rte_mbuf*>(buffer);
  // Bytes of a clone or of memory attached from outside, and those of a buffer with another owner, are not
  // ours.
  if (!RTE_MBUF_DIRECT(mbuf) || rte_mbuf_refcnt_read(mbuf) != 1) return 0;
  const auto* const begin = static_cast<const std::byte*>(mbuf->buf_addr);
  if (end < begin || end > begin + mbuf->buf_len) return 0;
  return static_cast<uint32_t>(begin + mbuf->buf_len - end);
}

uint64_t BufferPool::memory_bytes(uint32_t buffers, uint32_t buffer_bytes) noexcept {
  // mbuf, its headroom and the pool's object header, rounded to lines; the ring of free buffers takes 8 bytes
  // each.
  const uint64_t each = sizeof(rte_mbuf) + RTE_PKTMBUF_HEADROOM + buffer_bytes + 64 + 64;
  return uint64_t{buffers} * (each + 16) + (uint64_t{1} << 20);
}

BufferPool::BufferPool(const std::string& name, uint32_t buffers, uint32_t buffer_bytes, NodeId node)
    : buffers_(buffers), buffer_bytes_(buffer_bytes), node_(node) {
  if (buffer_bytes > UINT16_MAX - RTE_PKTMBUF_HEADROOM)
    throw DpdkError("packet buffers of " + std::to_string(buffer_bytes) + " bytes: at most " +
                    std::to_string(UINT16_MAX - RTE_PKTMBUF_HEADROOM) + " are possible");
  const int socket = node == kAnyNode ? SOCKET_ID_ANY : node.value();
  pool_ = rte_pktmbuf_pool_create(name.c_str(), buffers, cache_for(buffers), 0,
                                  static_cast<uint16_t>(buffer_bytes + RTE_PKTMBUF_HEADROOM), socket);
  if (pool_ == nullptr)
    throw DpdkError(
        "no pool of " + std::to_string(buffers) + " packet buffers of " + std::to_string(buffer_bytes) +
        " bytes (" + std::to_string(memory_bytes(buffers, buffer_bytes) >> 20) + " MiB) on node " +
        std::to_string(node.value()) + ": " + rte_strerror(rte_errno) +
        "; reserve hugepages on that node, or ask for fewer with --pool-mbufs" + recent_dpdk_log());
}

BufferPool::~BufferPool() {
  rte_mempool_free(pool_);
}

uint32_t BufferPool::available() const noexcept {
  return rte_mempool_avail_count(pool_);
}

}  // namespace migrx

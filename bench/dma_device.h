// One DPDK DMA device with one virtual channel, memory to memory; for bench/dma_offload alone.
#pragma once

#include <rte_dmadev.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace migrx::bench {

// Copies complete in the order in which they were submitted (rte_dmadev: a virtual channel is a queue). Used
// by one thread.
class DmaDevice {
 public:
  // name: of a device that EAL has found or was told of. descriptors: a power of two. Throws
  // std::runtime_error.
  DmaDevice(const std::string& name, uint16_t descriptors) : descriptors_(descriptors) {
    const int id = rte_dma_get_dev_id_by_name(name.c_str());
    if (id < 0) throw std::runtime_error("there is no DMA device " + name);
    id_ = static_cast<int16_t>(id);
    rte_dma_info info{};
    rte_dma_conf device{};
    device.nb_vchans = 1;
    rte_dma_vchan_conf channel{};
    channel.direction = RTE_DMA_DIR_MEM_TO_MEM;
    channel.nb_desc = descriptors;
    if (rte_dma_info_get(id_, &info) != 0 || (info.dev_capa & RTE_DMA_CAPA_SVA) == 0 ||
        descriptors < info.min_desc || descriptors > info.max_desc || rte_dma_configure(id_, &device) != 0 ||
        rte_dma_vchan_setup(id_, 0, &channel) != 0 || rte_dma_start(id_) != 0)
      throw std::runtime_error(name + " cannot be set up for copies of this process's memory");
  }
  ~DmaDevice() {
    rte_dma_stop(id_);
    rte_dma_close(id_);
  }
  DmaDevice(const DmaDevice&) = delete;
  DmaDevice& operator=(const DmaDevice&) = delete;

  // Copies that may be under way at a time: drivers keep a descriptor of the ring for themselves.
  [[nodiscard]] uint32_t room() const noexcept { return descriptors_ - 1U; }
  // Fills a descriptor. False: there is none free.
  [[nodiscard]] bool copy(std::byte* dst, const std::byte* src, uint32_t bytes) noexcept {
    return rte_dma_copy(id_, 0, reinterpret_cast<uintptr_t>(src), reinterpret_cast<uintptr_t>(dst), bytes,
                        0) >= 0;
  }
  // The doorbell: what has been filled is the device's.
  void submit() noexcept { rte_dma_submit(id_, 0); }
  // Copies, at most `most`, that have ended since the last call.
  [[nodiscard]] uint32_t completed(uint16_t most) noexcept {
    bool failed = false;
    const uint16_t count = rte_dma_completed(id_, 0, most, nullptr, &failed);
    failed_ = failed_ || failed;
    return count;
  }
  [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
  const uint16_t descriptors_;
  int16_t id_ = -1;
  bool failed_ = false;
};

}  // namespace migrx::bench

// A port made of memory, with a small pool of packet buffers that knows where each of them is.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "dataplane/port.h"

namespace migrx::testing {

// Shared by the queues of one poll core, as a DPDK pool is.
class MemoryPool {
 public:
  struct Buffer {
    std::span<std::byte> room;
    uint32_t length = 0;
    Buffer* next = nullptr;
    MemoryPool* pool = nullptr;
    bool free = true;
    std::unique_ptr<std::byte[]> memory;
  };
  MemoryPool(uint32_t buffers, uint32_t buffer_bytes) : buffer_bytes_(buffer_bytes), buffers_(buffers) {
    free_.reserve(buffers);
    for (Buffer& buffer : buffers_) {
      buffer.pool = this;
      free_.push_back(&buffer);
    }
  }
  Buffer* alloc() {
    if (free_.empty()) return nullptr;
    Buffer* const buffer = free_.back();
    free_.pop_back();
    // Each has memory of its own, so that a sanitizer sees who leaves it, and only when it is needed: the
    // last one freed is the next one used, and most are never used in the simulation, which makes pools by
    // the million.
    if (buffer->memory == nullptr) {
      buffer->memory = std::make_unique_for_overwrite<std::byte[]>(buffer_bytes_);
      buffer->room = {buffer->memory.get(), buffer_bytes_};
    }
    buffer->free = false;
    buffer->next = nullptr;
    buffer->length = 0;
    return buffer;
  }
  // TcpConfig::room_behind.
  static uint32_t room_behind(const void* buffer, const std::byte* end) noexcept {
    const auto& room = static_cast<const Buffer*>(buffer)->room;
    return static_cast<uint32_t>(room.data() + room.size() - end);
  }
  // Whole chain. Throws on a buffer that is free already.
  static void release(Buffer* buffer) {
    while (buffer != nullptr) {
      Buffer* const next = buffer->next;
      if (buffer->free) throw std::logic_error("packet buffer freed twice");
      buffer->free = true;
      buffer->next = nullptr;
      // Whoever still reads it shall notice.
      std::fill(buffer->room.begin(), buffer->room.end(), std::byte{0xee});
      buffer->pool->free_.push_back(buffer);
      buffer = next;
    }
  }
  // A chain holding `bytes`; nullptr when there are not enough buffers.
  Buffer* fill(Bytes bytes) {
    const std::size_t count = std::max<std::size_t>(1, (bytes.size() + buffer_bytes_ - 1) / buffer_bytes_);
    if (count > free_.size()) return nullptr;
    Buffer* head = nullptr;
    Buffer** link = &head;
    for (std::size_t i = 0; i < count; ++i) {
      Buffer* const buffer = alloc();
      const Bytes piece = bytes.subspan(
          i * buffer_bytes_, std::min<std::size_t>(buffer_bytes_, bytes.size() - i * buffer_bytes_));
      std::memcpy(buffer->room.data(), piece.data(), piece.size());
      buffer->length = static_cast<uint32_t>(piece.size());
      *link = buffer;
      link = &buffer->next;
    }
    return head;
  }
  [[nodiscard]] uint32_t total() const { return static_cast<uint32_t>(buffers_.size()); }
  [[nodiscard]] uint32_t available() const { return static_cast<uint32_t>(free_.size()); }
  [[nodiscard]] uint32_t buffer_bytes() const { return buffer_bytes_; }

 private:
  uint32_t buffer_bytes_;
  std::vector<Buffer> buffers_;
  std::vector<Buffer*> free_;
};

class MemoryQueue : public PortQueue {
 public:
  MemoryQueue(MemoryPool& pool, EthernetAddress mac) : pool_(pool), mac_(mac) {}

  void set_tx_bytes(uint32_t bytes) { tx_.resize(bytes); }
  // The test's side of the wire.
  using Packet = std::vector<std::byte>;
  void arrive(Packet packet, ChecksumState ip = ChecksumState::unknown,
              ChecksumState l4 = ChecksumState::unknown) {
    incoming_.push_back({std::move(packet), ip, l4});
  }
  [[nodiscard]] std::size_t waiting() const { return incoming_.size(); }
  std::vector<Packet> sent;
  uint32_t dropped_no_buffer = 0;
  uint32_t tx_room = UINT32_MAX;        // frames the link takes per flush
  uint32_t tx_frames_max = UINT32_MAX;  // frames between two flushes

  uint32_t rx_burst(std::span<Frame> out) noexcept override {
    uint32_t count = 0;
    while (count < out.size() && !incoming_.empty()) {
      const Arrival arrival = std::move(incoming_.front());
      incoming_.pop_front();
      MemoryPool::Buffer* const buffer = pool_.fill(arrival.packet);
      if (buffer == nullptr) {
        ++dropped_no_buffer;
        continue;
      }
      out[count] = frame_of(buffer);
      out[count].ip_checksum = arrival.ip;
      out[count++].l4_checksum = arrival.l4;
    }
    return count;
  }
  uint32_t unchain(const Frame& frame, std::span<Slice> out) noexcept override {
    if (frame.nb_segs > out.size()) return 0;
    uint32_t count = 0;
    for (auto* buffer = static_cast<MemoryPool::Buffer*>(frame.buffer); buffer != nullptr;) {
      MemoryPool::Buffer* const next = buffer->next;
      out[count++] = {buffer->room.data(), buffer, buffer->length, StreamEnd::none};
      buffer->next = nullptr;
      buffer = next;
    }
    return count;
  }
  void free_bulk(std::span<void* const> buffers) noexcept override {
    for (void* const buffer : buffers) MemoryPool::release(static_cast<MemoryPool::Buffer*>(buffer));
  }
  bool adopt(const Frame& foreign, Frame& own) noexcept override {
    Packet bytes;
    auto* const theirs = static_cast<MemoryPool::Buffer*>(foreign.buffer);
    for (const auto* b = theirs; b != nullptr; b = b->next)
      bytes.insert(bytes.end(), b->room.begin(), b->room.begin() + b->length);
    MemoryPool::release(theirs);
    MemoryPool::Buffer* const copy = pool_.fill(bytes);
    if (copy == nullptr) return false;
    own = frame_of(copy);
    own.ip_checksum = foreign.ip_checksum;
    own.l4_checksum = foreign.l4_checksum;
    return true;
  }
  bool tx_alloc(TxFrame& out) noexcept override {
    if (queued_.size() >= tx_frames_max) return false;
    out = {nullptr, tx_.data(), static_cast<uint32_t>(tx_.size())};
    return true;
  }
  void tx_commit(uint32_t length) noexcept override {
    if (length > 0) queued_.emplace_back(tx_.begin(), tx_.begin() + length);
  }
  uint32_t tx_push() noexcept override {
    const auto count = std::min<std::size_t>(queued_.size(), tx_room);
    for (std::size_t i = 0; i < count; ++i) sent.push_back(std::move(queued_[i]));
    queued_.erase(queued_.begin(), queued_.begin() + static_cast<std::ptrdiff_t>(count));
    return static_cast<uint32_t>(count);
  }
  uint32_t tx_flush() noexcept override {
    const auto count = std::min<std::size_t>(queued_.size(), tx_room);
    for (std::size_t i = 0; i < count; ++i) sent.push_back(std::move(queued_[i]));
    queued_.clear();
    return static_cast<uint32_t>(count);
  }
  [[nodiscard]] EthernetAddress mac() const noexcept override { return mac_; }
  [[nodiscard]] uint32_t buffer_bytes() const noexcept override { return pool_.buffer_bytes(); }
  [[nodiscard]] uint32_t buffers_total() const noexcept override { return pool_.total(); }
  [[nodiscard]] uint32_t buffers_available() const noexcept override { return pool_.available(); }

 private:
  struct Arrival {
    Packet packet;
    ChecksumState ip, l4;
  };
  static Frame frame_of(MemoryPool::Buffer* buffer) {
    Frame frame;
    frame.buffer = buffer;
    frame.data = buffer->room.data();
    frame.data_len = buffer->length;
    frame.nb_segs = 0;
    for (const auto* b = buffer; b != nullptr; b = b->next) {
      frame.frame_len += b->length;
      ++frame.nb_segs;
    }
    return frame;
  }
  MemoryPool& pool_;
  EthernetAddress mac_;
  std::deque<Arrival> incoming_;
  std::vector<std::byte> tx_ = std::vector<std::byte>(2048);
  std::vector<Packet> queued_;
};

}  // namespace migrx::testing

#include "tests/sim/port.h"

#include <utility>

#include "tests/sim/allocation_counter.h"

namespace migrx::sim {
namespace {

using Buffer = testing::MemoryPool::Buffer;

Frame frame_of(Buffer* buffer) {
  Frame frame;
  frame.buffer = buffer;
  frame.data = buffer->room.data();
  frame.data_len = buffer->length;
  frame.nb_segs = 0;
  for (const Buffer* b = buffer; b != nullptr; b = b->next) {
    frame.frame_len += b->length;
    ++frame.nb_segs;
  }
  return frame;
}

}  // namespace

uint32_t Port::rx_burst(std::span<Frame> out) noexcept {
  const AllocationsNotCounted ours;
  uint32_t count = 0;
  while (count < out.size() && !incoming_.empty()) {
    const Arrival arrival = std::move(incoming_.front());
    incoming_.pop_front();
    Buffer* const buffer = pool_.fill(arrival.packet);
    if (buffer == nullptr) {
      ++rx_no_buffer;
      continue;
    }
    Frame& frame = out[count++];
    frame = frame_of(buffer);
    if (options_.checksum_offload)
      frame.ip_checksum = frame.l4_checksum = arrival.damaged ? ChecksumState::bad : ChecksumState::good;
  }
  return count;
}

uint32_t Port::unchain(const Frame& frame, std::span<Slice> out) noexcept {
  if (frame.nb_segs > out.size()) return 0;
  uint32_t count = 0;
  for (auto* buffer = static_cast<Buffer*>(frame.buffer); buffer != nullptr;) {
    Buffer* const next = buffer->next;
    out[count++] = {buffer->room.data(), buffer, buffer->length, StreamEnd::none};
    buffer->next = nullptr;
    buffer = next;
  }
  return count;
}

void Port::free_bulk(std::span<void* const> buffers) noexcept {
  for (void* const buffer : buffers) testing::MemoryPool::release(static_cast<Buffer*>(buffer));
}

bool Port::adopt(const Frame& foreign, Frame& own) noexcept {
  const AllocationsNotCounted ours;
  Packet bytes;
  auto* const theirs = static_cast<Buffer*>(foreign.buffer);
  for (const Buffer* b = theirs; b != nullptr; b = b->next)
    bytes.insert(bytes.end(), b->room.begin(), b->room.begin() + b->length);
  testing::MemoryPool::release(theirs);
  Buffer* const copy = pool_.fill(bytes);
  if (copy == nullptr) return false;
  own = frame_of(copy);
  own.ip_checksum = foreign.ip_checksum;
  own.l4_checksum = foreign.l4_checksum;
  return true;
}

bool Port::tx_alloc(TxFrame& out) noexcept {
  if (queued_.size() >= options_.tx_descriptors || random_.chance(options_.tx_fails)) return false;
  out = {nullptr, tx_.data(), static_cast<uint32_t>(tx_.size())};
  return true;
}

void Port::tx_commit(uint32_t length) noexcept {
  const AllocationsNotCounted ours;
  if (length > 0) queued_.emplace_back(tx_.begin(), tx_.begin() + length);
}

uint32_t Port::tx_flush() noexcept {
  const AllocationsNotCounted ours;
  const auto count = static_cast<uint32_t>(queued_.size());
  for (Packet& packet : queued_) sent.push_back(std::move(packet));
  queued_.clear();
  return count;
}

}  // namespace migrx::sim

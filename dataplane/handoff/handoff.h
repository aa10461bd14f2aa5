// The hand-off ring: one connection's in-order bytes on their way from its poll core to a loader worker, as
// slices of packet buffers, without copying. Together with the other headers of this folder, and
// the addresses of dataplane/wire/address.h, it is all that the loader knows of the dataplane.
//
//   poll core                         worker                            control thread
//   push..push publish ───────────▶  readable, advance, release
//   reclaim  ◀──(same slots)────────┘                                   send/close/reset ──▶ take_command
//
// The worker takes slices in two steps. advance() moves its reading position. release() gives the buffers
// back, which may be later: page data may still be read by the worker of another node.
//
// Buffers go home in the slots they came in: the worker releases a slot by moving head_, and the poll core,
// which alone may free the buffer, finds the pointer still in the slot when it reclaims. No second ring. A
// ring is used for another connection only when the worker has detached and the control thread has retired
// it.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/handoff/counter.h"
#include "dataplane/handoff/spsc_ring.h"
#include "dataplane/wire/address.h"

namespace migrx {

// Why a stream ended. Carried by the last slice of a connection, which has no bytes.
enum class StreamEnd : uint32_t {
  none,       // an ordinary slice
  fin,        // the peer sent FIN and everything before it has been handed over
  reset,      // RST, from the peer
  timed_out,  // keepalive or retransmission gave up: the peer is gone
  local,      // ended here: the control thread asked for close or reset
};

// A contiguous piece of the stream inside one packet buffer. Each slice owns one reference to its buffer.
struct Slice {
  const std::byte* data = nullptr;
  void* buffer = nullptr;  // opaque outside dataplane/dpdk; freed only by the poll core that owns its pool
  uint32_t length = 0;
  StreamEnd end = StreamEnd::none;
};
static_assert(sizeof(Slice) == 24);

// Fetches the first lines of a slice that is read next, while something else is done: its buffer may lie
// anywhere, and the hardware's prefetcher needs some lines to see that a new stream has begun. Not more of
// them: a burst of prefetches takes the fill buffers that the loads at hand need.
inline constexpr uint32_t kSlicePrefetchLines = 16;
inline void prefetch_slice(const Slice& slice) noexcept {
  const uint32_t bytes = std::min<uint32_t>(slice.length, kSlicePrefetchLines * kCacheLineBytes);
  for (uint32_t at = 0; at < bytes; at += kCacheLineBytes) __builtin_prefetch(slice.data + at);
}

// What the control thread asks of a connection.
struct ConnectionCommand {
  enum class Kind : uint16_t { send, close, reset, probe };
  static constexpr std::size_t kBytesMax = 60;  // a return-path message is 4 + at most 13 bytes in precopy
  Kind kind = Kind::send;
  uint16_t length = 0;
  std::array<std::byte, kBytesMax> bytes{};
};
static_assert(sizeof(ConnectionCommand) == 64);

class Handoff {
 public:
  // Commands that may wait: a TLS server's flight of 3.8 KB goes out as one piece.
  static constexpr uint32_t kCommands = 64;

  // capacity: slots, rounded up to a power of two; one slot more than `writable()` ever reports is kept for
  // the end marker, so the end of a stream can always be told. Allocates once, here.
  explicit Handoff(uint32_t capacity)
      : mask_(std::bit_ceil(capacity < 4 ? 4U : capacity) - 1),
        slots_(std::make_unique<Slice[]>(mask_ + 1)),
        commands_(kCommands) {}

  Handoff(const Handoff&) = delete;
  Handoff& operator=(const Handoff&) = delete;

  // ---- Poll core

  // Slots that push() may still fill. A byte is acknowledged only after its slice has been pushed.
  [[nodiscard]] uint32_t writable() const noexcept { return mask_ - (next_ - reclaimed_); }
  // Slots that hold a buffer: pushed and not yet reclaimed.
  [[nodiscard]] uint32_t held() const noexcept { return next_ - reclaimed_; }
  [[nodiscard]] uint32_t capacity() const noexcept { return mask_; }

  // Precondition: writable() > 0. The worker sees it after publish().
  void push(const Slice& slice) noexcept { push(slice.data, slice.buffer, slice.length); }
  // In parts: a Slice that was put together on the stack a moment ago and is copied by wider loads waits
  // there until all earlier stores have left the core, and some of those wait for lines of the worker's.
  void push(const std::byte* data, void* buffer, uint32_t length) noexcept {
    prefetch_to_write(&slots_[(next_ + kPushAhead) & mask_]);
    Slice& slot = slots_[next_++ & mask_];
    slot.data = data;
    slot.buffer = buffer;
    slot.length = length;
    slot.end = StreamEnd::none;
  }
  // Always possible, once: uses the reserved slot when the ring is full.
  void push_end(StreamEnd end) noexcept { slots_[next_++ & mask_] = Slice{nullptr, nullptr, 0, end}; }
  // One release store per burst and connection.
  void publish() noexcept { tail_.store(next_, std::memory_order_release); }  // pairs with readable()

  // Takes the buffers of released slots, at most `out.size()`, oldest first; returns how many slots became
  // writable. `count` is the number of buffers stored (slots without a buffer give none).
  uint32_t reclaim(std::span<void*> out, uint32_t& count) noexcept {
    count = 0;
    // pairs with detach() and release(): the worker has finished reading those bytes
    const uint32_t head = detached() ? next_ : head_.load(std::memory_order_acquire);
    const uint32_t before = reclaimed_;
    while (reclaimed_ != head && count < out.size()) {
      // Nothing is written here: the line may be the worker's, and push() will have fetched it when it is its
      // turn.
      void* const buffer = slots_[reclaimed_++ & mask_].buffer;
      if (buffer != nullptr) out[count++] = buffer;
    }
    return reclaimed_ - before;
  }

  // The worker's position is about to be looked at.
  void prefetch_progress() const noexcept { __builtin_prefetch(&head_); }

  [[nodiscard]] bool take_command(ConnectionCommand& command) noexcept { return commands_.pop(command); }
  // The worker will not look at this ring again. Pairs with detach().
  [[nodiscard]] bool detached() const noexcept { return detached_.load(std::memory_order_acquire); }

  // Neither the worker nor the control thread will look at this ring again. Pairs with detach() and retire().
  [[nodiscard]] bool reusable() const noexcept {
    return detached() && retired_.load(std::memory_order_acquire) && held() == 0;
  }
  // For use by the next connection: only when reusable() and the connection is closed.
  void reset() noexcept {
    ConnectionCommand ignored;
    while (commands_.pop(ignored)) {
    }
    head_.store(0, std::memory_order_relaxed);
    tail_.store(0, std::memory_order_relaxed);
    next_ = reclaimed_ = read_ = tail_seen_ = 0;
    bytes_sent_ = 0;
    for (Counter* const counter :
         {&bytes_received, &segments, &out_of_order, &duplicate_segments, &over_quota, &acks_sent,
          &zero_window, &bytes_acknowledged, &heard_ns, &bytes_shown})
      counter->set(0);
    detached_.store(false, std::memory_order_relaxed);
    retired_.store(false, std::memory_order_release);
  }

  // ---- Worker

  // The next published slices that lie side by side in the ring; empty: nothing new. They stay valid until
  // released.
  [[nodiscard]] std::span<const Slice> readable() noexcept {
    if (read_ == tail_seen_) tail_seen_ = tail_.load(std::memory_order_acquire);  // pairs with publish()
    const uint32_t first = read_ & mask_;
    const uint32_t count = std::min(tail_seen_ - read_, mask_ + 1 - first);
    return {&slots_[first], count};
  }
  // Moves the reading position; the slots stay owned by the worker.
  void advance(uint32_t slices) noexcept { read_ += slices; }
  // Gives the oldest `slices` of those advanced over back to the poll core.
  void release(uint32_t slices) noexcept {
    head_.store(head_.load(std::memory_order_relaxed) + slices,
                std::memory_order_release);  // pairs with reclaim()
  }
  [[nodiscard]] uint32_t advanced_unreleased() const noexcept {
    return read_ - head_.load(std::memory_order_relaxed);
  }
  // The oldest of those slots that lie side by side: still owned by the worker.
  [[nodiscard]] std::span<const Slice> unreleased() const noexcept {
    const uint32_t first = head_.load(std::memory_order_relaxed) & mask_;
    return {&slots_[first], std::min(advanced_unreleased(), mask_ + 1 - first)};
  }
  // How the stream has ended, although slices before that end may be unread; none: it has not.
  [[nodiscard]] StreamEnd published_end() const noexcept {
    const uint32_t tail = tail_.load(std::memory_order_acquire);  // pairs with publish()
    return tail != read_ ? slots_[(tail - 1) & mask_].end : StreamEnd::none;
  }
  // Releases everything, read or not, now and in future; the last call a worker makes.
  void detach() noexcept { detached_.store(true, std::memory_order_release); }  // pairs with reclaim()

  // ---- Control thread

  // False: the command ring is full; try again later. bytes.size() <= ConnectionCommand::kBytesMax.
  [[nodiscard]] bool send(Bytes bytes) noexcept {
    ConnectionCommand command;
    command.length = static_cast<uint16_t>(bytes.size());
    std::memcpy(command.bytes.data(), bytes.data(), bytes.size());
    if (!commands_.push(command)) return false;
    bytes_sent_ += bytes.size();
    return true;
  }
  // Everything sent so far has reached the peer's TCP.
  [[nodiscard]] bool all_acknowledged() const noexcept { return bytes_acknowledged.read() >= bytes_sent_; }
  // Something that came has not been read, or is not through yet: a full ring closes the window.
  [[nodiscard]] bool unread() const noexcept {
    return head_.load(std::memory_order_relaxed) != tail_.load(std::memory_order_relaxed);
  }
  // close: FIN after what was sent. reset: RST now.
  [[nodiscard]] bool close() noexcept { return commands_.push({ConnectionCommand::Kind::close, 0, {}}); }
  [[nodiscard]] bool abort() noexcept { return commands_.push({ConnectionCommand::Kind::reset, 0, {}}); }
  // Asks the peer's TCP for a sign of life, which heard_ns shows, and bytes_shown how far it has sent; and
  // says again what it may send. Nothing when bytes are on their way anyway.
  [[nodiscard]] bool probe() noexcept { return commands_.push({ConnectionCommand::Kind::probe, 0, {}}); }

  // The control thread is done with this connection, its counters included; its last call.
  void retire() noexcept { retired_.store(true, std::memory_order_release); }  // pairs with reusable()

  // ---- Written by the poll core before the connection is announced, constant afterwards
  std::array<char, 64> peer{};  // "10.77.0.1:45678" or "[fd00::1]:45678", for people
  IpAddress peer_address;       // tells who belongs together
  uint64_t opened_ns = 0;       // when its SYN came, on the poll core's clock; 0: nobody knows
  uint32_t poll_core = 0;       // index of the owning poll core
  uint32_t connection = 0;      // index within that core
  uint32_t tenant = 0;          // id of the tenant whose port it was opened to (dataplane/tenant.h)

  // ---- Written by the poll core, read by the control thread
  Counter bytes_received;      // in-order payload bytes handed over
  Counter segments;            // segments that carried payload
  Counter out_of_order;        // segments that arrived beyond a hole
  Counter duplicate_segments;  // segments that brought nothing new
  Counter over_quota;          // in-window segments dropped un-ACKed because slots or buffers ran out
  Counter acks_sent;
  Counter zero_window;         // times the announced window reached zero
  Counter bytes_acknowledged;  // of those given to send(): the peer's TCP has them
  Counter heard_ns;            // when the peer last sent anything, on the poll core's clock; 0: not known
  // How much of its stream the peer has sent, as far as its sequence numbers have shown it: where that is
  // more than bytes_received, bytes were lost or refused, and the peer's TCP has them to send again.
  Counter bytes_shown;

 private:
  // Constant, and read by both sides all the time: not on a line with the counters above.
  alignas(kCacheLineBytes) const uint32_t mask_;
  const std::unique_ptr<Slice[]> slots_;
  SpscRing<ConnectionCommand> commands_;  // control thread -> poll core
  uint64_t bytes_sent_ = 0;               // control thread
  std::atomic<bool> retired_{false};      // set by the control thread

  // The worker read these slots a lap ago and its cache has them: a burst's worth ahead of the position,
  // their lines are here when they are written.
  static constexpr uint32_t kPushAhead = 16;

  // Positions are free-running. Invariant: reclaimed_ <= head_ <= read_ <= tail_ <= next_ <= reclaimed_ +
  // mask_ + 1. What one side keeps for itself is not near the line that the other side looks at all the time:
  // hardware fetches lines in pairs.
  static constexpr std::size_t kPair = 2 * kCacheLineBytes;
  alignas(kPair) std::atomic<uint32_t> tail_{0};  // written by the poll core
  alignas(kPair) uint32_t next_ = 0;              // the poll core's own
  uint32_t reclaimed_ = 0;
  alignas(kPair) std::atomic<uint32_t> head_{0};  // written by the worker
  std::atomic<bool> detached_{false};
  alignas(kPair) uint32_t read_ = 0;  // the worker's own
  uint32_t tail_seen_ = 0;
};

}  // namespace migrx

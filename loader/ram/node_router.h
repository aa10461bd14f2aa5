// Page data for memory of another NUMA node is handed as copy jobs to a worker of that node, so that every
// store is local.
//
//   parsing worker                         worker on the block's node
//   CopyLane::push(dst, src) ───ring───▶   CopyLane::serve(): copy, fence,
//   completed() >= its last job? ◀─────────  one release store of the count per batch
//
// The source bytes stay where they are, in packet buffers: the worker that pushed a job keeps its slices
// until the job is completed. With one node there is no router, and this file is not entered.
#pragma once

#include <array>
#include <atomic>
#include <utility>
#include <vector>

#include "dataplane/handoff/counter.h"
#include "dataplane/handoff/spsc_ring.h"
#include "loader/ram/page_writer.h"
#include "numa/ids.h"

namespace migrx {

struct CopyJob {
  std::byte* dst = nullptr;
  const std::byte* src = nullptr;
  uint32_t length = 0;
};

// From one worker to one worker. Jobs of several channels may be mixed; they complete in the order
// of the ring.
class CopyLane {
 public:
  // capacity: jobs that may wait, rounded up to a power of two. kernels must outlive the lane.
  CopyLane(uint32_t capacity, const PageKernels& kernels) : jobs_(capacity), writer_(kernels) {}

  // ---- Parsing worker ----

  // False: no room; nothing was stored. Pieces for consecutive memory should be pushed in order: their lines
  // are joined.
  [[nodiscard]] bool push(const CopyJob& job) noexcept {
    if (!jobs_.push(job)) return false;
    pushed_.add();
    return true;
  }
  [[nodiscard]] bool has_room() const noexcept { return jobs_.size() < jobs_.capacity(); }
  // The number of the last job pushed, from 1.
  [[nodiscard]] uint64_t pushed() const noexcept { return pushed_.read(); }
  // Job `number` and all before it are in memory, visible to the caller, and their source bytes are free.
  [[nodiscard]] bool is_completed(uint64_t number) noexcept {
    if (completed_seen_ >= number) return true;
    completed_seen_ = completed_.load(std::memory_order_acquire);  // pairs with serve()
    return completed_seen_ >= number;
  }

  // ---- Worker of the memory's node ----

  // Copies at most `jobs_max` waiting jobs; returns how many.
  uint32_t serve(uint32_t jobs_max) noexcept;

  // ---- Any thread ----

  // Nothing is under way: before this the memory that jobs point to must not be unmapped, nor their source
  // buffers freed. Means something only once the parsing worker has stopped pushing.
  [[nodiscard]] bool drained() const noexcept {
    return completed_.load(std::memory_order_acquire) == pushed_.read();  // pairs with serve()
  }
  Counter bytes_copied;  // written by serve()

 private:
  void write(const CopyJob& job) noexcept;

  SpscRing<CopyJob> jobs_;
  // Parsing worker's line.
  alignas(kCacheLineBytes) Counter pushed_;
  uint64_t completed_seen_ = 0;
  // Serving worker's lines.
  alignas(kCacheLineBytes) std::atomic<uint64_t> completed_{0};
  uint64_t served_ = 0;
  PageWriter writer_;
};

// What one parsing worker knows: which lane leads to which node. Built once at start; lanes must outlive it.
class NodeRouter {
 public:
  explicit NodeRouter(NodeId home) noexcept : home_(home) {}
  void add(NodeId node, CopyLane& lane) { lanes_.emplace_back(node, &lane); }

  // nullptr: write it yourself (the worker's own node, no particular node, or nobody serves that node).
  [[nodiscard]] CopyLane* lane_to(NodeId node) const noexcept {
    if (node == home_ || node == kAnyNode) return nullptr;
    for (const auto& [to, lane] : lanes_)
      if (to == node) return lane;
    return nullptr;
  }

 private:
  NodeId home_;
  std::vector<std::pair<NodeId, CopyLane*>> lanes_;
};

// What one channel has under way: for each piece of its stream, and each lane that got jobs from it, one
// entry. Bounded; used by the worker that runs the channel.
class RoutedBytes {
 public:
  static constexpr uint32_t kEntriesMax = 256;

  // Is there room for a note() of this lane and piece?
  [[nodiscard]] bool room_for(const CopyLane& lane, uint64_t from) noexcept {
    if (tail_ - head_ == kEntriesMax) collect();
    return tail_ - head_ < kEntriesMax || is_newest(lane, from);
  }
  // Jobs up to lane.pushed() read bytes from stream offset `from` on (that of the piece they lie in, so that
  // it never decreases). Precondition: room_for(lane, from).
  void note(CopyLane& lane, uint64_t from) noexcept {
    if (!is_newest(lane, from)) entries_[tail_++ % kEntriesMax] = {&lane, 0, from};
    entries_[(tail_ - 1) % kEntriesMax].last_job = lane.pushed();
  }
  // Forgets what is completed. True: nothing is under way.
  bool collect() noexcept {
    while (head_ != tail_) {
      const Entry& entry = entries_[head_ % kEntriesMax];
      if (!entry.lane->is_completed(entry.last_job)) return false;
      ++head_;
    }
    return true;
  }
  // Oldest byte still referenced, or UINT64_MAX; as of the last collect().
  [[nodiscard]] uint64_t oldest() const noexcept {
    return head_ == tail_ ? UINT64_MAX : entries_[head_ % kEntriesMax].from;
  }

 private:
  struct Entry {
    CopyLane* lane = nullptr;
    uint64_t last_job = 0;
    uint64_t from = 0;
  };
  [[nodiscard]] bool is_newest(const CopyLane& lane, uint64_t from) const noexcept {
    if (head_ == tail_) return false;
    const Entry& newest = entries_[(tail_ - 1) % kEntriesMax];
    return newest.lane == &lane && newest.from == from;
  }

  std::array<Entry, kEntriesMax> entries_{};
  uint32_t head_ = 0;  // free-running
  uint32_t tail_ = 0;
};

}  // namespace migrx

// Keeps segments that arrived beyond a hole until the hole is filled (RFC 9293 section 3.10.7.4, seventh
// step).
//
//   rcv_nxt         run 0                run 1
//   |....hole....[node][node]...hole...[node]
//
// Read connection.h first.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "dataplane/handoff/handoff.h"
#include "dataplane/wire/segment.h"
#include "dataplane/wire/seq_num.h"

namespace migrx {

// Each node is one slice that owns its packet buffer; touching nodes form a run, and runs are what SACK
// reports. Invariants: runs ascend and neither overlap nor touch; nodes of a run lie side by side, each at
// least one byte; node_count() <= nodes_max and node_count() + discarded() <= 2 * nodes_max. All memory is
// allocated in the constructor. Not thread-safe.
//
// First wins: bytes once stored are never replaced by differing ones. A slice can be cut at both ends but not
// in two, because it owns a single reference; where an existing run lies inside a new slice, the run is
// compared and, when equal, replaced by the slice; when it differs, only the part before the run is kept and
// the sender sends the rest again.
class Reassembly {
 public:
  enum class Insert : uint8_t {
    stored,     // all or part of the slice was new; the slice's buffer is now owned here (slice.buffer =
                // nullptr)
    duplicate,  // nothing new
    no_room,    // all nodes in use
    no_run,     // all runs in use: too many holes
  };
  struct Result {
    Insert insert = Insert::duplicate;
    bool differs = false;       // an overlap had differing bytes
    bool overlaps = false;      // some byte had been there before
    SackBlock duplicate_range;  // meaningful when overlaps: the first such range, for D-SACK
  };

  Reassembly(uint32_t nodes_max, uint32_t runs_max);

  // Stores [seq, seq + slice.length). in_order: it will be popped at once and may exceed runs_max for that
  // moment. Precondition: slice.length > 0, and all of it is above what was popped and within 2^31 of every
  // run.
  Result insert(SeqNum seq, Slice& slice, bool in_order) noexcept;

  // Takes the first node if it starts at `seq`.
  [[nodiscard]] bool pop_at(SeqNum seq, Slice& out) noexcept;
  // Gives up the highest node: RFC 2018 section 8 allows to renege on what was only SACKed. False: none left.
  // Its buffer joins the discarded ones.
  bool evict_last() noexcept;
  // Gives up everything.
  void clear() noexcept;

  // A buffer that pop_at() gave and that is of no use any more joins them.
  void discard(void* buffer) noexcept { discarded_[discarded_count_++] = buffer; }

  // Buffers that have no node any more and wait to be freed by the poll core.
  uint32_t take_discarded(std::span<void*> out) noexcept;
  [[nodiscard]] uint32_t discarded() const noexcept { return discarded_count_; }

  // The runs as SACK blocks: first the one that holds what arrived last, then by recency (RFC 2018 section
  // 4). Returns how many were stored.
  uint32_t sack_blocks(std::span<SackBlock> out) const noexcept;

  [[nodiscard]] bool empty() const noexcept { return run_count_ == 0; }
  [[nodiscard]] uint32_t node_count() const noexcept { return node_count_; }
  [[nodiscard]] uint32_t run_count() const noexcept { return run_count_; }
  [[nodiscard]] SackBlock run(uint32_t index) const noexcept;
  // One past the highest byte held. Precondition: !empty().
  [[nodiscard]] SeqNum end() const noexcept;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    Slice slice;
    SeqNum seq;
    uint32_t next = kNone;
    uint32_t prev = kNone;
  };
  struct Run {
    SeqNum begin;
    SeqNum end;
    uint32_t head = kNone;
    uint32_t tail = kNone;
  };

  [[nodiscard]] Run* runs() noexcept { return &runs_[run_first_]; }
  [[nodiscard]] const Run* runs() const noexcept { return &runs_[run_first_]; }
  // The first run whose end is at or beyond `seq`; run_count_ if there is none.
  [[nodiscard]] uint32_t lower_run(SeqNum seq) const noexcept;
  enum class Compared : uint8_t { equal, differs, not_looked };
  [[nodiscard]] Compared compare(const Run& run, SeqNum begin, SeqNum end, const Slice& slice,
                                 SeqNum slice_seq) const noexcept;
  void free_node(uint32_t index) noexcept;
  void discard_run(uint32_t index) noexcept;
  void insert_run(uint32_t index, const Run& run) noexcept;
  void erase_run(uint32_t index) noexcept;
  void remember(uint32_t run_index, SeqNum seq) noexcept;

  const uint32_t nodes_max_;
  const uint32_t runs_max_;
  const std::unique_ptr<Node[]> nodes_;
  const std::unique_ptr<Run[]>
      runs_;  // twice what is needed: the front can be erased without moving the rest
  const std::unique_ptr<void*[]> discarded_;  // 2 * nodes_max_
  uint32_t free_ = kNone;                     // list of unused nodes, by `next`
  uint32_t node_count_ = 0;
  uint32_t run_first_ = 0;
  uint32_t run_count_ = 0;
  uint32_t discarded_count_ = 0;
  // A byte of each of the last arrivals, newest first. Looked up when blocks are wanted; stale ones find no
  // run.
  static constexpr uint32_t kRecent = 8;
  uint32_t recent_count_ = 0;
  std::array<SeqNum, kRecent> recent_{};
};

}  // namespace migrx

#include "dataplane/tcp/reassembly.h"

#include <algorithm>
#include <cstring>

namespace migrx {
namespace {

// Comparing overlaps only serves to count a suspicious peer and to replace what it repeats, so it may not
// cost more than a few cache misses: a stranger could otherwise make us walk the whole window per tiny
// segment.
constexpr uint32_t kCompareNodesMax = 64;

constexpr bool inside(SackBlock block, SeqNum seq) noexcept {
  return block.begin <= seq && seq < block.end;
}

}  // namespace

Reassembly::Reassembly(uint32_t nodes_max, uint32_t runs_max)
    : nodes_max_(std::max(nodes_max, 1U)),
      runs_max_(std::max(runs_max, 1U)),
      nodes_(std::make_unique<Node[]>(nodes_max_)),
      runs_(std::make_unique<Run[]>((std::size_t{runs_max_} + 1) * 2)),
      discarded_(std::make_unique<void*[]>(std::size_t{nodes_max_} * 2)) {
  for (uint32_t i = 0; i < nodes_max_; ++i) nodes_[i].next = i + 1 < nodes_max_ ? i + 1 : kNone;
  free_ = 0;
}

SackBlock Reassembly::run(uint32_t index) const noexcept {
  return {runs()[index].begin, runs()[index].end};
}

SeqNum Reassembly::end() const noexcept {
  return runs()[run_count_ - 1].end;
}

uint32_t Reassembly::lower_run(SeqNum seq) const noexcept {
  if (run_count_ == 0 || runs()[run_count_ - 1].end < seq) return run_count_;
  // While one segment is missing everything else lands in the last run.
  if (runs()[run_count_ - 1].begin <= seq) return run_count_ - 1;
  uint32_t low = 0;
  uint32_t high = run_count_ - 1;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (runs()[middle].end < seq) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Precondition: [begin, end) lies both in `run` and in `slice`. False: some byte differs, or too many nodes
// would have to be looked at.
Reassembly::Compared Reassembly::compare(const Run& run, SeqNum begin, SeqNum end, const Slice& slice,
                                         SeqNum slice_seq) const noexcept {
  // From whichever end of the run is nearer.
  uint32_t visited = 0;
  uint32_t index = run.head;
  if (bytes_between(run.begin, begin) > bytes_between(end, run.end)) {
    index = run.tail;
    while (nodes_[index].seq > begin) {
      if (++visited > kCompareNodesMax) return Compared::not_looked;
      index = nodes_[index].prev;
    }
  }
  while (index != kNone) {
    const Node& node = nodes_[index];
    if (node.seq >= end) break;
    if (++visited > 2 * kCompareNodesMax) return Compared::not_looked;
    const SeqNum from = later(begin, node.seq);
    const SeqNum to = earlier(end, node.seq + node.slice.length);
    if (from < to && std::memcmp(node.slice.data + bytes_between(node.seq, from),
                                 slice.data + bytes_between(slice_seq, from), bytes_between(from, to)) != 0) {
      return Compared::differs;
    }
    index = node.next;
  }
  return Compared::equal;
}

Reassembly::Result Reassembly::insert(SeqNum seq, Slice& slice, bool in_order) noexcept {
  Result result;
  SeqNum begin = seq;
  SeqNum end = seq + slice.length;
  const auto overlap = [&](const Run& run, SeqNum from, SeqNum to) noexcept {
    if (!result.overlaps) result.duplicate_range = {from, to};
    result.overlaps = true;
    const Compared compared = compare(run, from, to, slice, seq);
    result.differs = result.differs || compared == Compared::differs;
    return compared == Compared::equal;
  };

  // What the run before, or around, `begin` already has.
  uint32_t at = lower_run(begin);
  bool joins_left = false;
  if (at < run_count_ && runs()[at].begin <= begin) {
    const Run& left = runs()[at];
    if (begin < left.end) overlap(left, begin, earlier(end, left.end));
    if (left.end >= end) {
      // RFC 2883 section 4: the block that holds the duplicate is reported next to it.
      remember(at, begin);
      return result;
    }
    begin = left.end;
    joins_left = true;
    ++at;
  }
  if (node_count_ == nodes_max_ || node_count_ + discarded_count_ >= 2 * nodes_max_) {
    result.insert = Insert::no_room;
    return result;
  }
  // Runs that begin inside the slice. Invariant: runs()[at], if any, begins behind `begin`.
  while (at < run_count_ && runs()[at].begin < end) {
    const Run& other = runs()[at];
    const bool equal = overlap(other, other.begin, earlier(end, other.end));
    if (!equal || other.end >= end) {
      end = other.begin;
      break;
    }
    discard_run(at);
  }
  const bool joins_right = at < run_count_ && runs()[at].begin == end;
  if (!joins_left && !joins_right && run_count_ >= runs_max_ && !in_order) {
    result.insert = Insert::no_run;
    return result;
  }

  const uint32_t index = free_;
  Node& node = nodes_[index];
  free_ = node.next;
  ++node_count_;
  node.slice = slice;
  node.slice.data += bytes_between(seq, begin);
  node.slice.length = bytes_between(begin, end);
  node.seq = begin;
  node.next = node.prev = kNone;
  slice.buffer = nullptr;
  result.insert = Insert::stored;

  uint32_t home = at;
  if (joins_left) {
    home = at - 1;
    Run& left = runs()[home];
    node.prev = left.tail;
    nodes_[left.tail].next = index;
    left.tail = index;
    left.end = end;
    if (joins_right) {
      Run& right = runs()[at];
      node.next = right.head;
      nodes_[right.head].prev = index;
      left.tail = right.tail;
      left.end = right.end;
      erase_run(at);
    }
  } else if (joins_right) {
    Run& right = runs()[at];
    node.next = right.head;
    nodes_[right.head].prev = index;
    right.head = index;
    right.begin = begin;
  } else {
    insert_run(at, Run{begin, end, index, index});
  }
  remember(home, begin);
  return result;
}

bool Reassembly::pop_at(SeqNum seq, Slice& out) noexcept {
  if (run_count_ == 0 || runs()[0].begin != seq) return false;
  Run& run = runs()[0];
  const uint32_t index = run.head;
  out = nodes_[index].slice;
  run.begin += out.length;
  run.head = nodes_[index].next;
  free_node(index);
  if (run.head == kNone) {
    erase_run(0);
  } else {
    nodes_[run.head].prev = kNone;
  }
  return true;
}

bool Reassembly::evict_last() noexcept {
  if (run_count_ == 0) return false;
  Run& run = runs()[run_count_ - 1];
  const uint32_t index = run.tail;
  discarded_[discarded_count_++] = nodes_[index].slice.buffer;
  run.end = nodes_[index].seq;
  run.tail = nodes_[index].prev;
  free_node(index);
  if (run.tail == kNone) {
    erase_run(run_count_ - 1);
  } else {
    nodes_[run.tail].next = kNone;
  }
  return true;
}

void Reassembly::clear() noexcept {
  while (run_count_ > 0) discard_run(run_count_ - 1);
  run_first_ = 0;
  recent_count_ = 0;
}

uint32_t Reassembly::take_discarded(std::span<void*> out) noexcept {
  const auto count = static_cast<uint32_t>(std::min<std::size_t>(out.size(), discarded_count_));
  discarded_count_ -= count;
  std::copy_n(&discarded_[discarded_count_], count, out.begin());
  return count;
}

uint32_t Reassembly::sack_blocks(std::span<SackBlock> out) const noexcept {
  uint32_t count = 0;
  const auto known = [&](SackBlock block) noexcept {
    return std::find(out.begin(), out.begin() + count, block) != out.begin() + count;
  };
  for (uint32_t i = 0; i < recent_count_ && count < out.size(); ++i) {
    const uint32_t at = lower_run(recent_[i]);
    if (at == run_count_) continue;
    // lower_run() also finds a run that ends exactly at the byte, which then lies in the next one or in none.
    const uint32_t home = inside(run(at), recent_[i]) ? at : at + 1;
    if (home >= run_count_ || !inside(run(home), recent_[i]) || known(run(home))) continue;
    out[count++] = run(home);
  }
  for (uint32_t i = run_count_; i > 0 && count < out.size() && count < run_count_; --i) {
    if (!known(run(i - 1))) out[count++] = run(i - 1);
  }
  return count;
}

void Reassembly::free_node(uint32_t index) noexcept {
  nodes_[index].slice = Slice{};
  nodes_[index].next = free_;
  free_ = index;
  --node_count_;
}

void Reassembly::discard_run(uint32_t index) noexcept {
  for (uint32_t node = runs()[index].head; node != kNone;) {
    const uint32_t next = nodes_[node].next;
    discarded_[discarded_count_++] = nodes_[node].slice.buffer;
    free_node(node);
    node = next;
  }
  erase_run(index);
}

void Reassembly::insert_run(uint32_t index, const Run& run) noexcept {
  if (run_first_ + run_count_ == 2 * (runs_max_ + 1)) {
    std::copy_n(runs(), run_count_, &runs_[0]);
    run_first_ = 0;
  }
  std::copy_backward(runs() + index, runs() + run_count_, runs() + run_count_ + 1);
  runs()[index] = run;
  ++run_count_;
}

void Reassembly::erase_run(uint32_t index) noexcept {
  --run_count_;
  if (index == 0) {
    run_first_ = run_count_ == 0 ? 0 : run_first_ + 1;
    return;
  }
  std::copy(runs() + index + 1, runs() + run_count_ + 1, runs() + index);
}

// Moves the run to the front of the recency order.
void Reassembly::remember(uint32_t run_index, SeqNum seq) noexcept {
  uint32_t hole = recent_count_ < kRecent ? recent_count_ : kRecent - 1;
  for (uint32_t i = 0; i < recent_count_; ++i) {
    if (inside(run(run_index), recent_[i])) {
      hole = i;
      break;
    }
  }
  if (hole == recent_count_) ++recent_count_;
  for (; hole > 0; --hole) recent_[hole] = recent_[hole - 1];
  recent_[0] = seq;
}

}  // namespace migrx

// COMPRESS_PAGE records, decompressed by several loader workers at once (the capability `compress` of sources
// up to 9.0; QEMU migration/ram-compress.c does the same with its own threads).
//
//   main's worker                                  helper i (any other loader worker)
//   submit(): copy the record into a slot ──ring──▶ do_work(): inflate, fence, one release store per batch
//   settled(): every ring is empty  ◀──────────────── position of the last finished job
//
// The compressed bytes are copied (at most 4110 of them) so that packet buffers need not wait for helpers. A
// page is sent once per section at most, and the main channel waits at each EOS until all jobs are done, so
// jobs need no order. When every ring is full the page is decompressed on the spot: main's worker is a helper
// of its own.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "dataplane/handoff/counter.h"
#include "dataplane/handoff/spsc_ring.h"
#include "loader/ram/inflate_page.h"
#include "loader/stream/error.h"

namespace migrx {

struct CompressJob {
  std::byte* page = nullptr;
  uint64_t offset = 0;  // of the record in the stream, for the error
  uint32_t length = 0;
  std::byte data[kCompressedPageBytesMax];
};

// One helper's ring and decoder.
class CompressWorker {
 public:
  // Jobs per turn: 8 pages are some 30 µs of inflating; between turns the helper serves its channels.
  static constexpr uint32_t kJobsPerTurn = 8;

  CompressWorker(uint32_t slots, const PageKernels& kernels);

  // The helper's thread. Returns the number of pages decompressed.
  uint32_t do_work() noexcept;

  // Main's worker. nullptr: full. The slot becomes a job with commit().
  [[nodiscard]] CompressJob* claim() noexcept;
  void commit() noexcept;
  // Main's worker: all jobs are done and visible here.
  [[nodiscard]] bool drained() const noexcept { return head_.load(std::memory_order_acquire) == next_; }
  // Main's worker, when drained: the first failure.
  [[nodiscard]] InflateStatus failure(uint64_t& offset) const noexcept {
    offset = failed_offset_;
    return failed_;
  }

  Counter pages;  // written by the helper

 private:
  const uint32_t mask_;
  const std::unique_ptr<CompressJob[]> slots_;
  PageInflater inflater_;
  const PageKernels& kernels_;

  // Main's line. Invariant: head_ <= tail_ == next_ (between claim and commit: the slot at next_
  // is being filled).
  alignas(kCacheLineBytes) std::atomic<uint32_t> tail_{0};
  uint32_t next_ = 0;
  uint32_t head_seen_ = 0;
  // Helper's line.
  alignas(kCacheLineBytes) std::atomic<uint32_t> head_{0};
  InflateStatus failed_ = InflateStatus::ok;
  uint64_t failed_offset_ = 0;
};

class CompressJobs {
 public:
  // helpers: other workers that take part, 0 for none. slots: jobs that may wait for each; 64 slots
  // are 260 KiB.
  CompressJobs(uint32_t helpers, uint32_t slots, const PageKernels& kernels);

  [[nodiscard]] uint32_t helpers() const noexcept { return static_cast<uint32_t>(workers_.size()); }
  // Call its do_work() from the helper's thread, before the main channel starts until it has ended.
  [[nodiscard]] CompressWorker& helper(uint32_t i) noexcept { return *workers_[i]; }

  // Main's worker. `data`: at most kCompressedPageBytesMax bytes, copied or used up. page: kPageBytes,
  // page-aligned. Not ok: this very record was decompressed here and is wrong; failures at helpers
  // show in settled().
  [[nodiscard]] InflateStatus submit(Bytes data, uint64_t offset, std::byte* page) noexcept;
  // Main's worker: every job is done.
  [[nodiscard]] bool settled() const noexcept;
  // Main's worker, when settled: the failure with the lowest offset, or ok.
  [[nodiscard]] InflateStatus failure(uint64_t& offset) const noexcept;

 private:
  std::vector<std::unique_ptr<CompressWorker>> workers_;
  uint32_t turn_ = 0;
  PageInflater inflater_;  // main's own
};

}  // namespace migrx

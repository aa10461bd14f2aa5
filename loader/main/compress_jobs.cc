#include "loader/main/compress_jobs.h"

#include <bit>
#include <cstring>

namespace migrx {

CompressWorker::CompressWorker(uint32_t slots, const PageKernels& kernels)
    : mask_(std::bit_ceil(slots < 2 ? 2U : slots) - 1),
      slots_(std::make_unique<CompressJob[]>(mask_ + 1)),
      inflater_(kernels),
      kernels_(kernels) {}

CompressJob* CompressWorker::claim() noexcept {
  if (next_ - head_seen_ > mask_) {
    head_seen_ = head_.load(std::memory_order_acquire);  // pairs with do_work(): the slot has been read
    if (next_ - head_seen_ > mask_) return nullptr;
  }
  return &slots_[next_ & mask_];
}

void CompressWorker::commit() noexcept {
  tail_.store(++next_, std::memory_order_release);  // pairs with do_work()
}

uint32_t CompressWorker::do_work() noexcept {
  const uint32_t head = head_.load(std::memory_order_relaxed);
  const uint32_t waiting = tail_.load(std::memory_order_acquire) - head;  // pairs with commit()
  const uint32_t count = waiting < kJobsPerTurn ? waiting : kJobsPerTurn;
  if (count == 0) return 0;
  for (uint32_t i = 0; i < count; ++i) {
    const CompressJob& job = slots_[(head + i) & mask_];
    const InflateStatus status = inflater_.inflate(PageFormat::zlib, {job.data, job.length}, job.page);
    if (status != InflateStatus::ok && failed_ == InflateStatus::ok) {
      failed_ = status;
      failed_offset_ = job.offset;
    }
  }
  kernels_.fence();  // the pages were stored past the cache: order them before the release
  pages.add(count);
  head_.store(head + count, std::memory_order_release);  // pairs with drained() and claim()
  return count;
}

CompressJobs::CompressJobs(uint32_t helpers, uint32_t slots, const PageKernels& kernels)
    : inflater_(kernels) {
  workers_.reserve(helpers);
  for (uint32_t i = 0; i < helpers; ++i) workers_.push_back(std::make_unique<CompressWorker>(slots, kernels));
}

InflateStatus CompressJobs::submit(Bytes data, uint64_t offset, std::byte* page) noexcept {
  const uint32_t count = helpers();
  for (uint32_t tried = 0; tried < count; ++tried) {
    CompressWorker& worker = *workers_[turn_];
    turn_ = turn_ + 1 == count ? 0 : turn_ + 1;
    CompressJob* const job = worker.claim();
    if (job == nullptr) continue;
    job->page = page;
    job->offset = offset;
    job->length = static_cast<uint32_t>(data.size());
    std::memcpy(job->data, data.data(), data.size());
    worker.commit();
    return InflateStatus::ok;
  }
  return inflater_.inflate(PageFormat::zlib, data, page);
}

bool CompressJobs::settled() const noexcept {
  for (const auto& worker : workers_)
    if (!worker->drained()) return false;
  return true;
}

InflateStatus CompressJobs::failure(uint64_t& offset) const noexcept {
  InflateStatus first = InflateStatus::ok;
  for (const auto& worker : workers_) {
    uint64_t at = 0;
    const InflateStatus status = worker->failure(at);
    if (status != InflateStatus::ok && (first == InflateStatus::ok || at < offset)) {
      first = status;
      offset = at;
    }
  }
  return first;
}

}  // namespace migrx

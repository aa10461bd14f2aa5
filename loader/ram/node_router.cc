#include "loader/ram/node_router.h"

namespace migrx {

uint32_t CopyLane::serve(uint32_t jobs_max) noexcept {
  CopyJob job;
  uint32_t count = 0;
  uint64_t bytes = 0;
  while (count < jobs_max && jobs_.pop(job)) {
    writer_.seek(job.dst);
    writer_.write({job.src, job.length});
    bytes += job.length;
    ++count;
  }
  if (count == 0) return 0;
  writer_.fence();
  served_ += count;
  completed_.store(served_, std::memory_order_release);  // pairs with is_completed()
  bytes_copied.add(bytes);
  return count;
}

}  // namespace migrx

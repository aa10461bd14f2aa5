#include "loader/ram/node_router.h"

#include <algorithm>
#include <cstring>

namespace migrx {

// A page comes in pieces, and the jobs of another channel may stand between two of them: then the second
// begins inside a line whose first bytes are in memory already. The rest of that line is stored in the
// ordinary way, and what follows begins on a line again, as the writer wants it.
void CopyLane::write(const CopyJob& job) noexcept {
  std::byte* dst = job.dst;
  const std::byte* src = job.src;
  std::size_t length = job.length;
  const std::size_t inside = reinterpret_cast<uintptr_t>(dst) % kLineBytes;
  if (inside != 0 && dst != writer_.position()) {
    writer_.flush();
    const std::size_t rest = std::min(length, kLineBytes - inside);
    std::memcpy(dst, src, rest);
    dst += rest;
    src += rest;
    length -= rest;
    if (length == 0) return;
  }
  writer_.seek(dst);
  writer_.write({src, length});
}

uint32_t CopyLane::serve(uint32_t jobs_max) noexcept {
  CopyJob job;
  uint32_t count = 0;
  uint64_t bytes = 0;
  while (count < jobs_max && jobs_.pop(job)) {
    write(job);
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

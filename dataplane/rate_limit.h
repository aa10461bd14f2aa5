// A limit on the answers that strangers can make us send, per second.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dataplane/tcp/config.h"

namespace migrx {

// A token bucket: `per_second` answers on average, as many at once after a quiet second. One thread.
class RateLimit {
 public:
  explicit RateLimit(uint32_t per_second) noexcept
      : token_ns_(kNsPerSecond / std::max(per_second, 1U)), depth_ns_(kNsPerSecond) {}

  // False: too many.
  [[nodiscard]] bool take(uint64_t now_ns) noexcept {
    // empty_ns_: when the bucket would have been empty; a token moves it on.
    const uint64_t from_ns = std::max(empty_ns_, now_ns > depth_ns_ ? now_ns - depth_ns_ : 0);
    if (from_ns + token_ns_ > now_ns) return false;
    empty_ns_ = from_ns + token_ns_;
    return true;
  }

 private:
  uint64_t token_ns_;
  uint64_t depth_ns_;
  uint64_t empty_ns_ = 0;
};

}  // namespace migrx

#include "loader/destination/tail_detector.h"

#include <algorithm>

namespace migrx {

void TailDetector::feed(Bytes bytes) {
  if (bytes.empty()) return;
  // Look at the new bytes together with those that may begin a pattern that ends in them.
  std::vector<std::byte> window = last_;
  window.insert(window.end(), bytes.begin(), bytes.end());
  const uint64_t window_start = total_ - last_.size();
  for (std::size_t i = 0; i + kPatternBytes <= window.size(); ++i) {
    if (window[i] != std::byte{0x00} || window[i + 1] != std::byte{0x06} || window[i + 6] != std::byte{'{'})
      continue;
    const uint32_t length = load_be32(&window[i + 2]);
    if (length == 0 || length > kDescriptionBytesMax) continue;
    if (ends_.size() == kCandidatesMax) ends_.erase(ends_.begin());
    ends_.push_back(window_start + i + 6 + length);
  }
  total_ += bytes.size();
  last_.assign(window.end() - static_cast<std::ptrdiff_t>(std::min(window.size(), kPatternBytes - 1)),
               window.end());
  std::erase_if(ends_, [&](uint64_t end) { return end < total_; });
  complete_ = std::find(ends_.begin(), ends_.end(), total_) != ends_.end();
}

}  // namespace migrx

#include "loader/destination/discarded_pages.h"

namespace migrx {

void DiscardedPages::prepare(const RamBlockList& blocks) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!blocks[i].file_backed()) continue;
    const auto [at, made] =
        blocks_.emplace(blocks[i].idstr(), std::make_unique<PageBitmap>(blocks[i].pages()));
    if (made) by_name_.emplace(at->first, at->second.get());
  }
}

void DiscardedPages::add(std::string_view idstr, uint64_t first, uint64_t pages) noexcept {
  ++ranges_;
  pages_ += pages;
  if (const auto found = by_name_.find(idstr); found != by_name_.end())
    found->second->set_range(first, pages);
}

uint8_t DiscardedPages::kept(std::string_view idstr, uint64_t index) const noexcept {
  const auto found = by_name_.find(idstr);
  if (found == by_name_.end()) return 0;
  const PageBitmap& discarded = *found->second;
  uint8_t bits = 0;
  for (uint64_t bit = 0; bit < 8; ++bit) {
    const uint64_t page = 8 * index + bit;
    if (page < discarded.pages() && !discarded.test(page)) bits = static_cast<uint8_t>(bits | 1U << bit);
  }
  return bits;
}

}  // namespace migrx

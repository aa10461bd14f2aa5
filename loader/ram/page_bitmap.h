// One bit per target page, set by any worker, scanned by one thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>

namespace migrx {

class PageBitmap {
 public:
  explicit PageBitmap(uint64_t pages)
      : pages_(pages), words_(std::make_unique<std::atomic<uint64_t>[]>((pages + 63) / 64)) {}

  [[nodiscard]] uint64_t pages() const noexcept { return pages_; }

  // Call when the page has been written. Release, so that the thread that takes the bit sees the page. A bit
  // that stands already costs one load (most pages of later rounds): a take() that runs meanwhile may then
  // have read the page too early, so a taker that must not miss anything takes once more after a barrier (as
  // for the RAM END section).
  void set(uint64_t page) noexcept {
    std::atomic<uint64_t>& word = words_[page / 64];
    const uint64_t bit = uint64_t{1} << (page % 64);
    if ((word.load(std::memory_order_relaxed) & bit) == 0) word.fetch_or(bit, std::memory_order_release);
  }
  // The same for `count` pages side by side: one locked operation per 64 pages instead of one per page. count
  // may be 0; the range must lie inside pages().
  void set_range(uint64_t first, uint64_t count) noexcept {
    while (count > 0) {
      const uint64_t in_word = std::min<uint64_t>(count, 64 - first % 64);
      const uint64_t ones = in_word == 64 ? ~uint64_t{0} : (uint64_t{1} << in_word) - 1;
      const uint64_t bits = ones << (first % 64);
      std::atomic<uint64_t>& word = words_[first / 64];
      if ((word.load(std::memory_order_relaxed) & bits) != bits)
        word.fetch_or(bits, std::memory_order_release);
      first += in_word;
      count -= in_word;
    }
  }
  [[nodiscard]] bool test(uint64_t page) const noexcept {
    return (words_[page / 64].load(std::memory_order_acquire) >> (page % 64) & 1) != 0;
  }
  void clear_all() noexcept {
    for (uint64_t i = 0; i < (pages_ + 63) / 64; ++i) words_[i].store(0, std::memory_order_relaxed);
  }
  [[nodiscard]] uint64_t count() const noexcept {
    uint64_t n = 0;
    for (uint64_t i = 0; i < (pages_ + 63) / 64; ++i)
      n += static_cast<uint64_t>(std::popcount(words_[i].load(std::memory_order_relaxed)));
    return n;
  }

  // Bits set here or in `other`, a bitmap of as many pages.
  [[nodiscard]] uint64_t count_with(const PageBitmap& other) const noexcept {
    uint64_t n = 0;
    for (uint64_t i = 0; i < (pages_ + 63) / 64; ++i)
      n += static_cast<uint64_t>(std::popcount(words_[i].load(std::memory_order_relaxed) |
                                               other.words_[i].load(std::memory_order_relaxed)));
    return n;
  }

  // Calls visit(page) for every bit set and moves it to `taken`, a bitmap of as many pages. Writers may set
  // bits meanwhile; they are seen now or next time. acquire pairs with set(), release with a test() of the
  // cleared bit: whoever sees it clear finds it in `taken`.
  template <class Visit>
  void take_into(PageBitmap& taken, Visit&& visit) {
    for (uint64_t i = 0; i < (pages_ + 63) / 64; ++i) {
      uint64_t bits = words_[i].load(std::memory_order_relaxed);
      if (bits == 0) continue;
      taken.words_[i].fetch_or(bits, std::memory_order_relaxed);
      words_[i].fetch_and(~bits, std::memory_order_acq_rel);
      for (; bits != 0; bits &= bits - 1) visit(i * 64 + static_cast<uint64_t>(std::countr_zero(bits)));
    }
  }
  // Calls visit(page) for bits set and clears them, in slices: from word `next_word` on, until `words` have
  // been looked at or about `pages` bits taken (whole words: up to 63 more); all three are moved on. True:
  // the end has been reached.
  template <class Visit>
  bool take_some(uint64_t& next_word, uint64_t& words, uint64_t& pages, Visit&& visit) {
    for (const uint64_t count = (pages_ + 63) / 64; next_word < count; ++next_word) {
      if (words == 0 || pages == 0) return false;
      --words;
      if (words_[next_word].load(std::memory_order_relaxed) == 0) continue;
      uint64_t bits = words_[next_word].exchange(0, std::memory_order_acquire);
      pages -= std::min<uint64_t>(pages, static_cast<uint64_t>(std::popcount(bits)));
      for (; bits != 0; bits &= bits - 1)
        visit(next_word * 64 + static_cast<uint64_t>(std::countr_zero(bits)));
    }
    return true;
  }

 private:
  uint64_t pages_;
  std::unique_ptr<std::atomic<uint64_t>[]> words_;
};

}  // namespace migrx

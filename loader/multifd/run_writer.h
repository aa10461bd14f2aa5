// The bytes of one packet's pages to memory, by full-line stores.
#pragma once

#include <algorithm>
#include <span>

#include "loader/multifd/decoder.h"

namespace migrx {

// Of one channel, or of its decoder. What is written fills the packet's runs in order, and nothing but them.
class RunWriter {
 public:
  // kernels must outlive it.
  explicit RunWriter(const PageKernels& kernels) noexcept : writer_(kernels) {}

  // A packet begins; the runs stay valid until it is full.
  void begin(std::span<const PageRun> runs) noexcept {
    runs_ = runs;
    run_done_ = 0;
    left_ = 0;
    for (const PageRun& run : runs) left_ += run.bytes;
  }
  // Bytes of the packet's pages not yet written. At most kMultifdPagesMax pages.
  [[nodiscard]] uint32_t left() const noexcept { return left_; }
  // bytes: at most left(). They may be freed at once.
  void write(Bytes bytes) noexcept {
    left_ -= static_cast<uint32_t>(bytes.size());
    while (!bytes.empty()) {
      const PageRun& run = runs_.front();
      const std::size_t part = std::min<std::size_t>(bytes.size(), run.bytes - run_done_);
      if (run_done_ == 0) writer_.seek(run.dst);
      writer_.write(bytes.first(part));
      bytes = bytes.subspan(part);
      run_done_ += static_cast<uint32_t>(part);
      if (run_done_ == run.bytes) {
        runs_ = runs_.subspan(1);
        run_done_ = 0;
      }
    }
  }
  // For who writes the next `to` bytes by himself and then says pass(): where those from `from` on go, as far
  // as they lie side by side. Empty: there are not so many, or the first is not where a cache line begins.
  [[nodiscard]] MutableBytes place(std::size_t from, std::size_t to) const noexcept {
    if (to > left_ || run_done_ % kLineBytes != 0) return {};
    std::size_t at = run_done_ + from;
    for (const PageRun& run : runs_) {
      if (at < run.bytes) return {run.dst + at, std::min<std::size_t>(run.bytes - at, to - from)};
      at -= run.bytes;
    }
    return {};
  }
  // Precondition: place(0, bytes) is not empty, and a multiple of a line has been written.
  void pass(std::size_t bytes) noexcept {
    left_ -= static_cast<uint32_t>(bytes);
    run_done_ += static_cast<uint32_t>(bytes);
    while (!runs_.empty() && run_done_ >= runs_.front().bytes) {
      run_done_ -= runs_.front().bytes;
      runs_ = runs_.subspan(1);
    }
    if (run_done_ > 0) writer_.seek(runs_.front().dst + run_done_);
  }
  // See PageWriter.
  void clear_page(std::byte* dst) noexcept { writer_.clear_page(dst); }
  void fence() noexcept { writer_.fence(); }

 private:
  PageWriter writer_;
  std::span<const PageRun> runs_;  // not yet full
  uint32_t run_done_ = 0;          // bytes of the first of them
  uint32_t left_ = 0;
};

}  // namespace migrx

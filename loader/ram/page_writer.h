// Writes pieces of a stream, split anywhere, to consecutive guest memory, each cache line (64 bytes) once.
// The stores go past the caches: nobody here reads guest pages again. Packets end in the middle of lines, so
// the first part of a line waits in a staging line until the next piece completes it.
//
// The end of the byte's way: multifd channels come here through loader/multifd/run_writer.h, RAM sections of
// the main channel directly.
#pragma once

#include "dataplane/handoff/byte_order.h"
#include "loader/ram/kernels/page_kernels.h"
#include "loader/ram/ram_block.h"

namespace migrx {

// One per channel, used by the worker that runs it. Bytes handed over may be freed at once: the last few of a
// piece, if they do not fill a line, are copied to a staging line until the next piece or flush().
//
// What was written is visible to this thread always, to others after fence() and a release store
// that they acquire.
class PageWriter {
 public:
  // kernels must outlive the writer (select_page_kernels() returns constants).
  explicit PageWriter(const PageKernels& kernels) noexcept : kernels_(&kernels) {}

  // The next byte goes to dst, which is aligned to kLineBytes unless it is position() already.
  void seek(std::byte* dst) noexcept {
    if (dst == position()) return;
    flush();
    lines_.dst = dst;
    lines_.fill = 0;
    flushed_ = 0;
  }
  [[nodiscard]] std::byte* position() const noexcept { return lines_.dst + lines_.fill; }

  void write(Bytes piece) noexcept {
    if (piece.empty()) return;
    flushed_ = 0;
    kernels_->write(lines_, piece.data(), piece.size());
  }

  // Stores an unfinished line too, with ordinary stores. Its bytes stay staged: if the next piece follows,
  // the line is stored once more, whole.
  void flush() noexcept {
    if (lines_.fill == flushed_) return;
    std::memcpy(lines_.dst, lines_.line, lines_.fill);
    flushed_ = lines_.fill;
  }
  // flush(), and everything written so far is ordered before the next release store. Before every completion
  // that other threads can see: SYNC, section EOS, end of RAM.
  void fence() noexcept {
    flush();
    kernels_->fence();
  }

  // Whole pages at once; dst is page-aligned. Not part of the consecutive stream: position() stays.
  void copy_page(std::byte* dst, const std::byte* src) noexcept {
    LineWriter page;
    page.dst = dst;
    kernels_->write(page, src, kPageBytes);
  }
  void clear_page(std::byte* dst) noexcept { kernels_->clear(dst, kPageBytes); }

  [[nodiscard]] const PageKernels& kernels() const noexcept { return *kernels_; }

 private:
  const PageKernels* kernels_;
  std::size_t flushed_ = 0;  // bytes of the staging line that flush() has stored
  LineWriter lines_;
};

}  // namespace migrx

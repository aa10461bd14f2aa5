// multifd-compression=qpl and uadk: every page for itself (QEMU migration/multifd-qpl.c, multifd-uadk.c).
//
//   payload := be32 length[normal_pages] data…
//
// length == page size: the page itself; shorter: one compressed stream of the page.
#pragma once

#include "loader/multifd/decoder.h"
#include "loader/ram/inflate_page.h"

namespace migrx {

// qpl writes raw deflate streams, uadk zlib streams. Both fall back to software that uses the same layout.
class PageStreamDecoder final : public PageDecoder {
 public:
  PageStreamDecoder(PageFormat format, const PageKernels& kernels);
  DecodeStatus begin(std::span<const PageRun> runs, uint32_t payload_bytes) noexcept override;
  DecodeStatus feed(Bytes piece) noexcept override;
  DecodeStatus finish() noexcept override;

 private:
  // `n` bytes of the payload side by side: in the piece, or gathered. nullptr: not all here yet.
  const std::byte* take(Bytes& piece, std::size_t n) noexcept;
  DecodeStatus check_lengths() noexcept;
  DecodeStatus store_page(const std::byte* data, uint32_t length) noexcept;

  const PageFormat format_;
  const std::unique_ptr<std::byte[]> gather_;  // kPageBytes: one page's data, or the lengths
  PageInflater inflater_;
  PageWriter writer_;

  std::size_t gathered_ = 0;
  // The packet at hand.
  std::span<const PageRun> runs_;
  std::size_t run_ = 0;
  uint32_t run_done_ = 0;
  uint32_t payload_bytes_ = 0;
  uint32_t pages_ = 0;
  uint32_t page_ = 0;
  bool lengths_known_ = false;
  std::array<uint32_t, kMultifdPagesMax> lengths_{};
};

}  // namespace migrx

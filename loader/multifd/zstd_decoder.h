// multifd-compression=zstd: one zstd frame per channel for the whole migration, flushed at the end of every
// packet (QEMU migration/multifd-zstd.c). The frame has no content size and no checksum, and never ends.
#pragma once

#include "loader/multifd/decoder.h"

struct ZSTD_DCtx_s;

namespace migrx {

// libzstd keeps the window itself and copies from it to the pages: look-back never reads guest memory (see
// zlib_decoder.h why it must not), and pieces of input may be as small as they come.
class ZstdDecoder final : public PageDecoder {
 public:
  explicit ZstdDecoder(int window_log_max);
  ~ZstdDecoder() override;
  DecodeStatus begin(std::span<const PageRun> runs, uint32_t payload_bytes) noexcept override;
  DecodeStatus feed(Bytes piece) noexcept override;
  DecodeStatus finish() noexcept override;

 private:
  ZSTD_DCtx_s* const context_;
  // The packet at hand.
  std::span<const PageRun> runs_;
  std::size_t run_ = 0;
  uint32_t run_done_ = 0;
};

}  // namespace migrx

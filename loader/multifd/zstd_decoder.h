// multifd-compression=zstd: one zstd frame per channel for the whole migration, flushed at the end of every
// packet (QEMU migration/multifd-zstd.c). The frame has no content size and no checksum, and never ends.
#pragma once

#include "loader/multifd/decoder.h"
#include "loader/multifd/run_writer.h"

struct ZSTD_DCtx_s;

namespace migrx {

// libzstd keeps the window itself and copies from it what it gives out: look-back never reads guest memory
// (see zlib_decoder.h why it must not), and pieces of input may be as small as they come. What it gives out
// goes to a private buffer first and from there past the caches to the pages: one copy more, in the
// second-level cache, but the library's own stores would fetch each line of guest memory only to overwrite it
// (docs/performance.md has the figures).
class ZstdDecoder final : public PageDecoder {
 public:
  ZstdDecoder(int window_log_max, const PageKernels& kernels);
  ~ZstdDecoder() override;
  DecodeStatus begin(std::span<const PageRun> runs, uint32_t payload_bytes) noexcept override;
  DecodeStatus feed(Bytes piece) noexcept override;
  DecodeStatus finish() noexcept override;

 private:
  static constexpr uint32_t kOutBytes = 64 * 1024;

  const std::unique_ptr<std::byte[]> out_;
  ZSTD_DCtx_s* const context_;
  RunWriter pages_;
};

}  // namespace migrx

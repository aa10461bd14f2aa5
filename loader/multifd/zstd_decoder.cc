#include "loader/multifd/zstd_decoder.h"

#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <new>

namespace migrx {

namespace {

DecodeStatus status_of(std::size_t error) noexcept {
  const ZSTD_ErrorCode code = ZSTD_getErrorCode(error);
  if (code == ZSTD_error_memory_allocation) return DecodeStatus::out_of_memory;
  if (code == ZSTD_error_frameParameter_windowTooLarge) return DecodeStatus::window_too_large;
  return DecodeStatus::corrupt;
}

}  // namespace

ZstdDecoder::ZstdDecoder(int window_log_max, const PageKernels& kernels)
    : out_(std::make_unique_for_overwrite<std::byte[]>(kOutBytes)),
      context_(ZSTD_createDCtx()),
      pages_(kernels) {
  if (context_ == nullptr ||
      ZSTD_isError(ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, window_log_max))) {
    ZSTD_freeDCtx(context_);
    throw std::bad_alloc();
  }
}

ZstdDecoder::~ZstdDecoder() {
  ZSTD_freeDCtx(context_);
}

DecodeStatus ZstdDecoder::begin(std::span<const PageRun> runs, uint32_t /*payload_bytes*/) noexcept {
  pages_.begin(runs);
  return DecodeStatus::ok;
}

DecodeStatus ZstdDecoder::feed(Bytes piece) noexcept {
  ZSTD_inBuffer in{piece.data(), piece.size(), 0};
  // Ends when the input is used up and nothing is held back: output space left over is the sign.
  for (;;) {
    // One byte more than the packet may hold: it stays free unless the payload is too long.
    const std::size_t room = std::min(kOutBytes, pages_.left() + 1);
    ZSTD_outBuffer out{out_.get(), room, 0};
    const std::size_t result = ZSTD_decompressStream(context_, &out, &in);
    if (ZSTD_isError(result)) return status_of(result);
    if (out.pos > pages_.left()) return DecodeStatus::too_much;
    pages_.write({out_.get(), out.pos});
    if (result == 0 && (out.pos > 0 || in.pos > 0)) return DecodeStatus::stream_ended;
    if (out.pos < room && in.pos == in.size) return DecodeStatus::ok;
  }
}

DecodeStatus ZstdDecoder::finish() noexcept {
  return pages_.left() == 0 ? DecodeStatus::ok : DecodeStatus::too_little;
}

}  // namespace migrx

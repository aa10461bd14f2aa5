#include "loader/multifd/zstd_decoder.h"

#include <zstd.h>
#include <zstd_errors.h>

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

ZstdDecoder::ZstdDecoder(int window_log_max) : context_(ZSTD_createDCtx()) {
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
  runs_ = runs;
  run_ = 0;
  run_done_ = 0;
  return DecodeStatus::ok;
}

DecodeStatus ZstdDecoder::feed(Bytes piece) noexcept {
  ZSTD_inBuffer in{piece.data(), piece.size(), 0};
  // Ends when the input is used up and nothing is held back: output space left over is the sign.
  for (;;) {
    std::byte beyond{};  // takes what a too long payload yields
    const bool filled = run_ == runs_.size();
    ZSTD_outBuffer out{filled ? &beyond : runs_[run_].dst + run_done_,
                       filled ? sizeof beyond : runs_[run_].bytes - run_done_, 0};
    const std::size_t result = ZSTD_decompressStream(context_, &out, &in);
    if (ZSTD_isError(result)) return status_of(result);
    if (filled && out.pos > 0) return DecodeStatus::too_much;
    if (result == 0 && (out.pos > 0 || in.pos > 0)) return DecodeStatus::stream_ended;
    const bool space_left = out.pos < out.size;
    if (!filled) {
      run_done_ += static_cast<uint32_t>(out.pos);
      if (run_done_ == runs_[run_].bytes) {
        ++run_;
        run_done_ = 0;
      }
    }
    if (space_left && in.pos == in.size) return DecodeStatus::ok;
  }
}

DecodeStatus ZstdDecoder::finish() noexcept {
  return run_ == runs_.size() ? DecodeStatus::ok : DecodeStatus::too_little;
}

}  // namespace migrx

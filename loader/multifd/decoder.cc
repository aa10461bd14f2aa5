#include "loader/multifd/decoder.h"

#include "loader/multifd/page_stream_decoder.h"
#include "loader/multifd/zlib_decoder.h"
#include "loader/multifd/zstd_decoder.h"

namespace migrx {

const char* to_string(DecodeStatus status) noexcept {
  switch (status) {
    case DecodeStatus::ok:
      return "ok";
    case DecodeStatus::corrupt:
      return "the compressed data is corrupt";
    case DecodeStatus::stream_ended:
      return "the channel's compressed stream ends, and a QEMU source never ends it";
    case DecodeStatus::too_little:
      return "the payload ends before all pages of the packet are filled";
    case DecodeStatus::too_much:
      return "the payload holds more than the pages of the packet";
    case DecodeStatus::bad_length:
      return "the lengths of the compressed pages are impossible or do not add up to next_packet_size";
    case DecodeStatus::window_too_large:
      return "the compressed stream asks for a larger window than is allowed here; lower multifd-zstd-level "
             "at the "
             "source";
    case DecodeStatus::out_of_memory:
      return "no memory for the window that the compressed stream asks for";
  }
  return "?";
}

bool is_supported(MultifdCompression method) noexcept {
  return method != MultifdCompression::qatzip;
}

std::unique_ptr<PageDecoder> make_page_decoder(MultifdCompression method, const PageKernels& kernels,
                                               const DecoderLimits& limits) {
  switch (method) {
    case MultifdCompression::none:
    case MultifdCompression::qatzip:
      return nullptr;
    case MultifdCompression::zlib:
      return std::make_unique<ZlibDecoder>(kernels);
    case MultifdCompression::zstd:
      return std::make_unique<ZstdDecoder>(limits.zstd_window_log_max, kernels);
    case MultifdCompression::qpl:
      return std::make_unique<PageStreamDecoder>(PageFormat::raw_deflate, kernels);
    case MultifdCompression::uadk:
      return std::make_unique<PageStreamDecoder>(PageFormat::zlib, kernels);
  }
  return nullptr;
}

}  // namespace migrx

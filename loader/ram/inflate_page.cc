#include "loader/ram/inflate_page.h"

#include <isa-l/igzip_lib.h>

namespace migrx {

const char* to_string(InflateStatus status) noexcept {
  switch (status) {
    case InflateStatus::ok:
      return "ok";
    case InflateStatus::corrupt:
      return "the compressed data is corrupt";
    case InflateStatus::not_finished:
      return "the compressed data ends too early";
    case InflateStatus::wrong_size:
      return "the compressed data is not exactly one page";
    case InflateStatus::input_left:
      return "bytes follow the end of the compressed page";
  }
  return "?";
}

PageInflater::PageInflater(const PageKernels& kernels)
    : kernels_(&kernels),
      state_(std::make_unique<inflate_state>()),
      out_(std::make_unique<std::byte[]>(kOutBytes)) {}

PageInflater::~PageInflater() = default;

InflateStatus PageInflater::inflate(PageFormat format, Bytes in, std::byte* page) noexcept {
  isal_inflate_init(state_.get());
  state_->crc_flag = format == PageFormat::zlib ? ISAL_ZLIB : ISAL_DEFLATE;
  // The library takes a pointer to mutable bytes and only reads them.
  state_->next_in = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(in.data()));
  state_->avail_in = static_cast<uint32_t>(in.size());
  state_->next_out = reinterpret_cast<uint8_t*>(out_.get());
  state_->avail_out = kOutBytes;
  switch (isal_inflate_stateless(state_.get())) {
    case ISAL_DECOMP_OK:
      break;
    case ISAL_END_INPUT:
      return InflateStatus::not_finished;
    case ISAL_OUT_OVERFLOW:
      return InflateStatus::wrong_size;
    default:
      return InflateStatus::corrupt;
  }
  if (state_->block_state != ISAL_BLOCK_FINISH) return InflateStatus::not_finished;
  if (state_->avail_out != kOutBytes - kPageBytes) return InflateStatus::wrong_size;
  if (state_->avail_in != 0) return InflateStatus::input_left;
  LineWriter writer;
  writer.dst = page;
  kernels_->write(writer, out_.get(), kPageBytes);
  return InflateStatus::ok;
}

}  // namespace migrx

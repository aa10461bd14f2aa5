#include "loader/multifd/zlib_decoder.h"

#include <algorithm>

#include <isa-l/igzip_lib.h>

namespace migrx {

ZlibDecoder::ZlibDecoder(const PageKernels& kernels)
    : state_(std::make_unique<inflate_state>()),
      in_(std::make_unique_for_overwrite<std::byte[]>(kInBytes)),
      out_(std::make_unique_for_overwrite<std::byte[]>(kOutBytes)),
      pages_(kernels) {
  isal_inflate_init(state_.get());
  state_->crc_flag = ISAL_DEFLATE;
}

ZlibDecoder::~ZlibDecoder() = default;

DecodeStatus ZlibDecoder::begin(std::span<const PageRun> runs, uint32_t payload_bytes) noexcept {
  pages_.begin(runs);
  payload_left_ = payload_bytes;
  gathered_ = 0;
  return DecodeStatus::ok;
}

DecodeStatus ZlibDecoder::feed(Bytes piece) noexcept {
  payload_left_ -= static_cast<uint32_t>(piece.size());
  while (!piece.empty()) {
    const std::size_t part = std::min<std::size_t>(piece.size(), kInBytes - gathered_);
    std::memcpy(in_.get() + gathered_, piece.data(), part);
    gathered_ += static_cast<uint32_t>(part);
    piece = piece.subspan(part);
    if (gathered_ < kInBytes && (payload_left_ > 0 || !piece.empty())) break;
    const Bytes in{in_.get(), gathered_};
    gathered_ = 0;
    if (const DecodeStatus status = inflate(in); status != DecodeStatus::ok) return status;
  }
  return DecodeStatus::ok;
}

// RFC 1950 2.2.
DecodeStatus ZlibDecoder::read_header() noexcept {
  const uint32_t cmf = std::to_integer<uint32_t>(in_[0]);
  const uint32_t flg = std::to_integer<uint32_t>(in_[1]);
  const bool deflate = (cmf & 0x0f) == 8 && (cmf >> 4) <= 7;
  const bool dictionary = (flg & 0x20) != 0;
  if (!deflate || dictionary || (cmf << 8 | flg) % 31 != 0) return DecodeStatus::corrupt;
  header_seen_ = true;
  return DecodeStatus::ok;
}

DecodeStatus ZlibDecoder::inflate(Bytes in) noexcept {
  if (!header_seen_) {
    // The gathered input is the whole payload or a full buffer, so the header is in it or there is none.
    if (in.size() < 2) return DecodeStatus::too_little;
    if (const DecodeStatus status = read_header(); status != DecodeStatus::ok) return status;
    in = in.subspan(2);
  }
  // The library takes a pointer to mutable bytes and only reads them.
  state_->next_in = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(in.data()));
  state_->avail_in = static_cast<uint32_t>(in.size());
  for (;;) {
    // One byte more than the packet may hold: it stays free unless the payload is too long. That also keeps
    // the library going to the end of the input (the flush marker lies after the last page's last byte).
    const uint32_t room = std::min(kOutBytes, pages_.left() + 1);
    state_->next_out = reinterpret_cast<uint8_t*>(out_.get());
    state_->avail_out = room;
    const int result = isal_inflate(state_.get());
    const uint32_t produced = room - state_->avail_out;
    if (result < 0 || result == ISAL_NEED_DICT) return DecodeStatus::corrupt;
    if (produced > pages_.left()) return DecodeStatus::too_much;
    pages_.write({out_.get(), produced});
    if (state_->block_state == ISAL_BLOCK_INPUT_DONE || state_->block_state == ISAL_BLOCK_FINISH)
      return DecodeStatus::stream_ended;
    // Output space left over means that the library stopped for want of input.
    if (state_->avail_out > 0) return state_->avail_in == 0 ? DecodeStatus::ok : DecodeStatus::corrupt;
  }
}

DecodeStatus ZlibDecoder::finish() noexcept {
  return pages_.left() == 0 ? DecodeStatus::ok : DecodeStatus::too_little;
}

}  // namespace migrx

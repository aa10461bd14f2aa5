#include "loader/multifd/page_stream_decoder.h"

#include <algorithm>

namespace migrx {

static_assert(4 * std::size_t{kMultifdPagesMax} <= kPageBytes, "the lengths are gathered where a page is");

PageStreamDecoder::PageStreamDecoder(PageFormat format, const PageKernels& kernels)
    : format_(format),
      gather_(std::make_unique<std::byte[]>(kPageBytes)),
      inflater_(kernels),
      writer_(kernels) {}

DecodeStatus PageStreamDecoder::begin(std::span<const PageRun> runs, uint32_t payload_bytes) noexcept {
  runs_ = runs;
  run_ = 0;
  run_done_ = 0;
  payload_bytes_ = payload_bytes;
  pages_ = 0;
  for (const PageRun& run : runs) pages_ += run.bytes / kPageBytes;
  page_ = 0;
  gathered_ = 0;
  lengths_known_ = false;
  return DecodeStatus::ok;
}

const std::byte* PageStreamDecoder::take(Bytes& piece, std::size_t n) noexcept {
  if (gathered_ == 0 && piece.size() >= n) {
    const std::byte* const p = piece.data();
    piece = piece.subspan(n);
    return p;
  }
  const std::size_t part = std::min(n - gathered_, piece.size());
  std::memcpy(gather_.get() + gathered_, piece.data(), part);
  gathered_ += part;
  piece = piece.subspan(part);
  if (gathered_ < n) return nullptr;
  gathered_ = 0;
  return gather_.get();
}

DecodeStatus PageStreamDecoder::feed(Bytes piece) noexcept {
  while (!piece.empty()) {
    if (!lengths_known_) {
      const std::byte* const p = take(piece, 4 * std::size_t{pages_});
      if (p == nullptr) return DecodeStatus::ok;
      for (uint32_t i = 0; i < pages_; ++i) lengths_[i] = load_be32(p + 4 * std::size_t{i});
      if (const DecodeStatus status = check_lengths(); status != DecodeStatus::ok) return status;
      lengths_known_ = true;
      continue;
    }
    if (page_ == pages_) return DecodeStatus::too_much;
    const uint32_t length = lengths_[page_];
    const std::byte* const p = take(piece, length);
    if (p == nullptr) return DecodeStatus::ok;
    if (const DecodeStatus status = store_page(p, length); status != DecodeStatus::ok) return status;
  }
  return DecodeStatus::ok;
}

DecodeStatus PageStreamDecoder::check_lengths() noexcept {
  uint64_t sum = 4 * uint64_t{pages_};
  for (uint32_t i = 0; i < pages_; ++i) {
    if (lengths_[i] == 0 || lengths_[i] > kPageBytes) return DecodeStatus::bad_length;
    sum += lengths_[i];
  }
  return sum == payload_bytes_ ? DecodeStatus::ok : DecodeStatus::bad_length;
}

DecodeStatus PageStreamDecoder::store_page(const std::byte* data, uint32_t length) noexcept {
  const PageRun& run = runs_[run_];
  std::byte* const page = run.dst + run_done_;
  if (length == kPageBytes) {
    writer_.copy_page(page, data);
  } else {
    switch (inflater_.inflate(format_, {data, length}, page)) {
      case InflateStatus::ok:
        break;
      case InflateStatus::corrupt:
      case InflateStatus::not_finished:
      case InflateStatus::input_left:
        return DecodeStatus::corrupt;
      case InflateStatus::wrong_size:
        return DecodeStatus::bad_length;
    }
  }
  ++page_;
  run_done_ += kPageBytes;
  if (run_done_ == run.bytes) {
    ++run_;
    run_done_ = 0;
  }
  return DecodeStatus::ok;
}

DecodeStatus PageStreamDecoder::finish() noexcept {
  return page_ == pages_ ? DecodeStatus::ok : DecodeStatus::too_little;
}

}  // namespace migrx

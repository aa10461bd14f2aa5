#include "loader/generate/channel_stream.h"

#include <algorithm>
#include <cstring>

namespace migrx {

void ChannelStream::append(std::vector<std::byte> head, std::vector<PageVersion> pages) {
  const uint64_t length = head.size() + pages.size() * kGuestPageBytes;
  if (length == 0) return;
  pieces_.push_back({end_, end_ + length, std::move(head), std::move(pages)});
  end_ += length;
}

void ChannelStream::find(uint64_t offset) noexcept {
  if (last_ >= pieces_.size() || offset < pieces_[last_].begin) {
    const auto found = std::partition_point(pieces_.begin(), pieces_.end(),
                                            [offset](const Piece& piece) { return piece.end <= offset; });
    last_ = static_cast<std::size_t>(found - pieces_.begin());
  }
}

uint64_t ChannelStream::element_end(uint64_t offset) noexcept {
  find(offset);
  while (offset >= pieces_[last_].end) ++last_;
  const Piece& piece = pieces_[last_];
  const uint64_t pages_begin = piece.begin + piece.head.size();
  if (offset < pages_begin) return pages_begin;
  return pages_begin + ((offset - pages_begin) / kGuestPageBytes + 1) * kGuestPageBytes;
}

void ChannelStream::read(uint64_t offset, std::span<std::byte> out) noexcept {
  if (out.empty()) return;
  find(offset);
  while (!out.empty()) {
    const Piece& piece = pieces_[last_];
    if (offset >= piece.end) {
      ++last_;
      continue;
    }
    uint64_t at = offset - piece.begin;
    std::size_t n = 0;
    if (at < piece.head.size()) {
      n = std::min(out.size(), piece.head.size() - at);
      std::memcpy(out.data(), piece.head.data() + at, n);
    } else {
      at -= piece.head.size();
      const auto in_page = static_cast<uint32_t>(at % kGuestPageBytes);
      n = std::min<std::size_t>(out.size(), kGuestPageBytes - in_page);
      image_.read(piece.pages[at / kGuestPageBytes], in_page, out.first(n));
    }
    out = out.subspan(n);
    offset += n;
  }
}

void ChannelStream::release(uint64_t offset) noexcept {
  released_ = std::max(released_, std::min(offset, end_));
  while (!pieces_.empty() && pieces_.front().end <= released_) {
    pieces_.pop_front();
    if (last_ > 0) --last_;
  }
}

}  // namespace migrx

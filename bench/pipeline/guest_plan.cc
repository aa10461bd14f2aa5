#include "bench/pipeline/guest_plan.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "dataplane/handoff/byte_order.h"
#include "tests/loader/main_stream_builder.h"

namespace migrx::bench {

GuestPlan::GuestPlan(uint32_t channels, uint64_t pages, uint32_t rounds, bool scatter)
    : channels_(channels), pages_(pages), rounds_(rounds), scatter_(scatter) {
  if (pages < kMultifdPagesMax || (pages & (pages - 1)) != 0)
    throw std::invalid_argument("the guest's pages must be a power of two, 128 at least");
  if (channels == 0 || channels > kMultifdChannelsMax) throw std::invalid_argument("1 to 255 channels");
  if (rounds == 0) throw std::invalid_argument("one round at least");
}

uint64_t GuestPlan::stream_bytes(uint32_t c) const noexcept {
  return kMultifdInitBytes + kMultifdHeaderBytes + rounds_ * round_bytes(c);
}

uint64_t GuestPlan::page_bytes_at(uint32_t channel, uint64_t position, uint64_t& i,
                                  uint32_t& in_page) const noexcept {
  i = kNoPage;
  const uint64_t begin = kMultifdInitBytes + kMultifdHeaderBytes + (rounds_ - 1) * round_bytes(channel);
  if (position < begin) return begin - position;
  const uint64_t packet = (position - begin) / kPacketBytes;
  const uint64_t at = (position - begin) % kPacketBytes;
  if (packet == packets_of(channel)) return UINT64_MAX;  // the last SYNC
  if (at < kMultifdHeaderBytes) return kMultifdHeaderBytes - at;
  i = (packet * channels_ + channel) * kMultifdPagesMax + (at - kMultifdHeaderBytes) / kPageBytes;
  in_page = static_cast<uint32_t>((at - kMultifdHeaderBytes) % kPageBytes);
  return kPageBytes - in_page;
}

std::vector<std::byte> GuestPlan::main_stream() const {
  test::MainStreamBuilder main;
  main.header().configuration("pc-q35-10.0");
  main.ram_start({{kBlockName, guest_bytes(), {}}}).multifd_flush().ram_close();
  for (uint32_t round = 0; round + 1 < rounds_; ++round) main.ram_part().multifd_flush().ram_close();
  main.ram_end().multifd_flush().ram_close().device_tail();
  return main.take();
}

// init, then SYNC 0, as one "header".
ChannelScript::ChannelScript(const GuestPlan& plan, uint32_t channel)
    : plan_(&plan), channel_(channel), left_(plan.stream_bytes(channel)) {
  store_be32(header_.data(), kMultifdMagic);
  store_be32(header_.data() + 4, kMultifdVersion);
  header_[24] = static_cast<std::byte>(channel);
  header_bytes_ = kMultifdInitBytes;
}

// The header behind the one that has been written whole, or behind the last page of its packet.
void ChannelScript::next_header() noexcept {
  const bool first_sync = header_bytes_ == kMultifdInitBytes;
  header_done_ = page_ = page_done_ = 0;
  header_bytes_ = kMultifdHeaderBytes;
  const bool sync = first_sync || packet_ == plan_->packets_of(channel_);
  pages_ = sync ? 0 : kMultifdPagesMax;
  std::memset(header_.data(), 0, header_.size());
  store_be32(header_.data(), kMultifdMagic);
  store_be32(header_.data() + 4, kMultifdVersion);
  store_be32(header_.data() + 8, sync ? multifd_flag::kSync : 0);
  store_be32(header_.data() + 12, pages_);
  store_be32(header_.data() + 16, pages_);
  store_be32(header_.data() + 20, pages_ * kPageBytes);
  if (sync) {
    if (!first_sync) {
      ++round_;
      packet_ = 0;
    }
    return;
  }
  std::memcpy(header_.data() + 64, kBlockName, std::strlen(kBlockName));
  const uint64_t first = (packet_ * plan_->channels() + channel_) * kMultifdPagesMax;
  for (uint32_t i = 0; i < kMultifdPagesMax; ++i)
    store_be64(header_.data() + kMultifdFixedBytes + 8 * std::size_t{i},
               plan_->page_at(round_, first + i) * kPageBytes);
  ++packet_;
}

uint32_t ChannelScript::write(std::byte* out, uint32_t length, Piece* pieces) noexcept {
  uint32_t count = 0;
  uint32_t at = 0;
  left_ -= length;
  while (at < length) {
    if (header_done_ < header_bytes_) {
      const uint32_t n = std::min(header_bytes_ - header_done_, length - at);
      std::memcpy(out + at, header_.data() + header_done_, n);
      pieces[count++] = {static_cast<uint16_t>(at), static_cast<uint16_t>(n)};
      header_done_ += n;
      at += n;
      if (header_done_ == header_bytes_ && pages_ == 0 && left_ + length > at) next_header();
      continue;
    }
    if (page_done_ < sizeof(PageStamp)) {
      const uint64_t offset = load_be64(header_.data() + kMultifdFixedBytes + 8 * std::size_t{page_});
      const uint64_t epoch = round_;
      const PageStamp fresh;
      const uint32_t n = std::min(static_cast<uint32_t>(sizeof fresh) - page_done_, length - at);
      if (n == sizeof fresh) {
        // Field by field: a struct put together on the stack and copied by wider loads would wait there until
        // all earlier stores have left the core.
        std::memcpy(out + at, &fresh.block, sizeof fresh.block);
        std::memcpy(out + at + offsetof(PageStamp, offset), &offset, sizeof offset);
        std::memcpy(out + at + offsetof(PageStamp, epoch), &epoch, sizeof epoch);
      } else {
        PageStamp stamp;
        stamp.offset = offset;
        stamp.epoch = epoch;
        std::memcpy(out + at, reinterpret_cast<const std::byte*>(&stamp) + page_done_, n);
      }
      pieces[count++] = {static_cast<uint16_t>(at), static_cast<uint16_t>(n)};
      page_done_ += n;
      at += n;
      continue;
    }
    const uint32_t n = std::min(kPageBytes - page_done_, length - at);
    page_done_ += n;
    at += n;
    if (page_done_ == kPageBytes) {
      page_done_ = 0;
      if (++page_ == pages_) next_header();
    }
  }
  return count;
}

}  // namespace migrx::bench

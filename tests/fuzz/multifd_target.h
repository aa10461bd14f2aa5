// The receiver of the multifd fuzz targets: one channel, two blocks between guard pages, every barrier
// released.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "loader/multifd/multifd_channel.h"
#include "tests/loader/guarded_memory.h"

namespace migrx::test {

inline void require_that(bool truth, const char* what) {
  if (truth) return;
  std::fprintf(stderr, "not true: %s\n", what);
  std::abort();
}

class FuzzMultifd {
 public:
  static constexpr uint64_t kMemBytes = 130 * kPageBytes;
  static constexpr uint64_t kSmallBytes = 3 * kPageBytes;

  explicit FuzzMultifd(MultifdCompression compression) {
    blocks_.add(std::make_unique<RamBlock>("mem", mem_.data(), kMemBytes, true, true, kAnyNode));
    blocks_.add(std::make_unique<RamBlock>("small", small_.data(), kSmallBytes, false, false, kAnyNode));
    barrier_.release(Epoch{1U << 30});  // nothing has to wait
    MultifdSession session;
    session.barrier = &barrier_;
    session.blocks = &blocks_;
    session.kernels = supported_page_kernels().back();
    session.compression = compression;
    session.decoder_limits.zstd_window_log_max = 20;  // a fuzzer finds large windows, and they only take time
    channel_ = std::make_unique<MultifdChannel>(session);
  }

  // In pieces; each is a copy of its own, so that keeping a pointer to it shows.
  void feed(Bytes input, std::size_t piece) {
    while (!input.empty()) {
      const Bytes part = input.first(std::min(piece, input.size()));
      const std::vector<std::byte> own(part.begin(), part.end());
      // As a channel does it: the short way for what is page data from end to end.
      const std::array slices{Slice{own.data(), nullptr, static_cast<uint32_t>(own.size()), StreamEnd::none}};
      if (channel_->take_page_data(slices) == 1) {
        input = input.subspan(part.size());
        continue;
      }
      const ParseResult result = channel_->parse(own);
      require_that((result.status == ParseStatus::failed) == static_cast<bool>(channel_->error()),
                   "failed exactly when there is an error");
      if (result.status == ParseStatus::failed) {
        require_that(!channel_->error().message().empty(), "an error says something");
        return;
      }
      require_that(result.consumed == part.size(), "everything is used up when no barrier holds");
      input = input.subspan(part.size());
    }
    static_cast<void>(channel_->end_of_stream());
    const uint64_t pages = channel_->counters().normal_pages.read();
    const uint64_t packets = channel_->counters().packets.read();
    require_that(pages <= packets * kMultifdPagesMax, "a packet has at most 128 pages");
  }

 private:
  GuardedMemory mem_{kMemBytes};
  GuardedMemory small_{kSmallBytes};
  RamBlockList blocks_;
  FlushBarrier barrier_{4};
  std::unique_ptr<MultifdChannel> channel_;
};

}  // namespace migrx::test

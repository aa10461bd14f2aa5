// What the source sends: which page is in which packet of which multifd channel, and what its bytes are.
//
//   channel c := init SYNC 0 (round r: packets c, c+N, c+2N, ..; SYNC)*
//   packet    := header of 1344 bytes, 128 pages
//
// Every page of the guest is sent in every round: what is in guest RAM at the end must be of the last one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "loader/multifd/multifd_packet.h"

namespace migrx::bench {

inline constexpr const char* kBlockName = "pc.ram";

// What stands at the begin of each page of the stream.
struct PageStamp {
  uint64_t block = 0x6d61'722e'6370'0001;
  uint64_t offset = 0;  // of the page in the block
  uint64_t epoch = 0;   // round
};
static_assert(sizeof(PageStamp) == 24);

class GuestPlan {
 public:
  // pages: a power of two, at least kMultifdPagesMax. scatter: pages of a packet lie apart in every other
  // round, as those of a guest that writes here and there.
  GuestPlan(uint32_t channels, uint64_t pages, uint32_t rounds, bool scatter);

  [[nodiscard]] uint32_t channels() const noexcept { return channels_; }
  [[nodiscard]] uint64_t pages() const noexcept { return pages_; }
  [[nodiscard]] uint64_t guest_bytes() const noexcept { return pages_ * kPageBytes; }
  [[nodiscard]] uint32_t rounds() const noexcept { return rounds_; }
  [[nodiscard]] uint64_t packets_per_round() const noexcept { return pages_ / kMultifdPagesMax; }
  // Packets of channel `c` in each round.
  [[nodiscard]] uint64_t packets_of(uint32_t c) const noexcept {
    return (packets_per_round() - c + channels_ - 1) / channels_;
  }
  // The page that stands i-th in a round.
  [[nodiscard]] uint64_t page_at(uint32_t round, uint64_t i) const noexcept {
    return scatter_ && round % 2 == 1 ? i * kStride & (pages_ - 1) : i;
  }
  // Bytes of channel `c` in all.
  [[nodiscard]] uint64_t stream_bytes(uint32_t c) const noexcept;
  static constexpr uint64_t kNoPage = UINT64_MAX;
  // What stands at `position` of a channel's stream: the page that is i-th in the last round, from its byte
  // `in_page` on; or, with i == kNoPage, something else. Returns the bytes until that changes, at least 1.
  [[nodiscard]] uint64_t page_bytes_at(uint32_t channel, uint64_t position, uint64_t& i,
                                       uint32_t& in_page) const noexcept;
  // The main channel's whole stream.
  [[nodiscard]] std::vector<std::byte> main_stream() const;

  static constexpr uint64_t kPacketBytes = kMultifdHeaderBytes + uint64_t{kMultifdPagesMax} * kPageBytes;

 private:
  static constexpr uint64_t kStride = 40'503;  // odd: a permutation of 2^n pages; no two of a packet touch
  [[nodiscard]] uint64_t round_bytes(uint32_t c) const noexcept {
    return packets_of(c) * kPacketBytes + kMultifdHeaderBytes;
  }
  const uint32_t channels_;
  const uint64_t pages_;
  const uint32_t rounds_;
  const bool scatter_;
};

// Writes the bytes of one channel's stream that are its own, one segment after the other: packet headers and
// page stamps. What lies between is whatever the segment's buffer holds.
class ChannelScript {
 public:
  ChannelScript(const GuestPlan& plan, uint32_t channel);

  struct Piece {
    uint16_t begin = 0;
    uint16_t length = 0;
  };
  // Most pieces of one segment of at most 9000 bytes: a SYNC, a header and stamps.
  static constexpr uint32_t kPiecesMax = 12;

  [[nodiscard]] uint64_t left() const noexcept { return left_; }
  // Writes the next `length` bytes of the stream to `out` as far as they are the channel's own, and where
  // that was to `pieces`; returns how many. Precondition: length <= left().
  uint32_t write(std::byte* out, uint32_t length, Piece* pieces) noexcept;
  // Where in a page the byte stands that comes `ahead` bytes later, if no packet header comes before it.
  [[nodiscard]] uint32_t page_position(uint32_t ahead) const noexcept {
    return (page_done_ + ahead) % kPageBytes;
  }

 private:
  void next_header() noexcept;

  const GuestPlan* plan_;
  uint32_t channel_;
  uint64_t left_;
  uint32_t round_ = 0;
  uint64_t packet_ = 0;       // of the round, of this channel
  uint32_t page_ = 0;         // of the packet
  uint32_t page_done_ = 0;    // bytes
  uint32_t pages_ = 0;        // in this packet; 0: none follow the header
  uint32_t header_done_ = 0;  // bytes
  uint32_t header_bytes_ = 0;
  bool sync_next_ = false;
  std::array<std::byte, kMultifdHeaderBytes> header_{};
};

}  // namespace migrx::bench

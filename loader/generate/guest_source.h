// What a QEMU source with multifd would send for a GuestImage: the main channel's stream and those of the
// multifd channels, round by round, with a barrier after each round (QEMU migration/ram.c,
// multifd_ram_flush_and_sync; the per-round mode of machine types since 8.1).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "loader/generate/channel_stream.h"
#include "loader/generate/guest_image.h"
#include "loader/generate/payload_encoder.h"

namespace migrx {

struct GuestSourceSettings {
  std::string block = "mem";   // idstr of the only RAM block
  std::string machine = "pc";  // a destination QEMU compares as many characters as there are here
  uint32_t channels = 1;       // 1..255
  MultifdMethod method = MultifdMethod::none;
  int level = 1;
  uint64_t bytes_per_second = 0;  // of stream; 0: as fast as it goes
};

// PING values (MIG_CMD_PING): the peer answers the second when all of RAM is loaded, for its main thread
// reads it after the last barrier.
inline constexpr uint32_t kPingHello = 1;
inline constexpr uint32_t kPingRamLoaded = 2;

// Single thread. Nothing is made before it is asked for, so memory is bounded by the channels' backlogs.
class GuestSource {
 public:
  // The image is not owned. Throws std::runtime_error when a compression library fails.
  GuestSource(const GuestSourceSettings& settings, const GuestImage& image);

  // Stream 0 is the main channel's, the others are the multifd channels'.
  [[nodiscard]] uint32_t streams() const noexcept { return static_cast<uint32_t>(streams_.size()); }
  [[nodiscard]] ChannelStream& stream(uint32_t i) noexcept { return streams_[i]; }

  // Makes packets for a multifd channel until its backlog is `backlog` bytes, the rate limit of a source that
  // started elapsed_ns ago is reached, everything has been made, or some packets have been made: a call takes
  // a few milliseconds at most, compression apart. Throws as the constructor does.
  void fill(uint32_t stream, uint64_t backlog, uint64_t elapsed_ns);
  // Makes everything now, packets dealt out in turn: recorded, as it were. Compressed packets stay in memory.
  void make_all();
  [[nodiscard]] bool all_made() const noexcept { return round_ == image_.settings().rounds; }

  [[nodiscard]] uint64_t guest_bytes() const noexcept { return guest_bytes_; }  // pages sent, zero pages too
  [[nodiscard]] uint64_t zero_pages() const noexcept { return zero_pages_; }
  [[nodiscard]] uint64_t normal_pages() const noexcept { return normal_pages_; }
  [[nodiscard]] uint64_t packets() const noexcept { return packet_num_; }

 private:
  void begin();
  void make_packet(uint32_t stream);
  void end_round();
  void sync(uint32_t stream);

  const GuestSourceSettings settings_;
  const GuestImage& image_;
  std::vector<ChannelStream> streams_;
  std::vector<std::unique_ptr<PayloadEncoder>> encoders_;  // per multifd channel; empty: none
  uint32_t round_ = 0;
  uint64_t cursor_ = 0;  // next page of the round
  uint64_t packet_num_ = 0;
  uint64_t made_bytes_ = 0;
  uint64_t guest_bytes_ = 0;
  uint64_t zero_pages_ = 0;
  uint64_t normal_pages_ = 0;
};

}  // namespace migrx

// The extra connections that a destination QEMU with multifd on waits for. No page goes over them: the main
// connection alone brings what migrx has not loaded.
//
// What such a QEMU needs (QEMU migration/multifd.c, multifd_recv_thread, multifd_recv_sync_main):
// - main first, then each channel with its init packet, before it reads anything
// - with a machine type that synchronises at every section's EOS: one SYNC packet per channel for each EOS
//   that it gets. More SYNCs than it asks for do no harm: the channel's thread waits with the surplus one
//   until the end lets it go.
// - the connections stay open until it has said SHUT; it closes them itself.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "loader/destination/further_link.h"
#include "loader/multifd/multifd_packet.h"

namespace migrx {

using MultifdInitPacket = std::array<std::byte, kMultifdInitBytes>;

// A SYNC packet without pages, of a source with pages of 4 KiB. Pure.
[[nodiscard]] std::vector<std::byte> make_multifd_sync();

// Control thread. Sockets are non-blocking.
class DestinationMultifd {
 public:
  DestinationMultifd() = default;
  ~DestinationMultifd();
  DestinationMultifd(const DestinationMultifd&) = delete;
  DestinationMultifd& operator=(const DestinationMultifd&) = delete;

  // One connection for each init packet of the source, sent on as it came.
  void begin(FurtherAddress to, std::span<const MultifdInitPacket> inits);
  [[nodiscard]] bool begun() const noexcept { return !channels_.empty(); }

  // Connects and sends what is due: init packets, and `syncs` SYNCs altogether on each. Returns work done.
  // problem() is set when a connection failed or ended.
  uint32_t do_work(uint64_t syncs, uint64_t now_ns);
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
  // All are connected and have their init packets.
  [[nodiscard]] bool ready() const noexcept;
  void close();
  // It wanted none: begun() is false again.
  void forget();

 private:
  struct Channel {
    MultifdInitPacket init{};
    FurtherLink further{};
    uint64_t sent = 0;  // bytes of: init, SYNC, SYNC, …
  };
  uint32_t send_some(Channel& channel, uint64_t syncs);

  FurtherAddress to_;
  std::vector<std::byte> sync_ = make_multifd_sync();
  std::vector<Channel> channels_;
  std::string problem_;
};

}  // namespace migrx

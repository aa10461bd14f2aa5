// One forwarded connection: what a peer sends to the port goes to a server of this host, and what the server
// says goes back. Bytes are not looked at. Disks travel so: libvirt's source writes them to an NBD server of
// the destination QEMU (qemuMigrationDstStartNBDServer), at the address to which it migrates.
//
//   opening ──▶ flowing ──both have ended──▶ over
//      └────────────┴──one has failed──▶ resetting ──▶ over
//
// Flow control is TCP's on both sides: bytes that the server does not take stay in the hand-off ring, the
// ring fills, and the peer's window closes; what the peer does not take fills the commands' ring, and the
// server is not read. Nothing is dropped, and nothing grows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "dataplane/handoff/counter.h"
#include "dataplane/handoff/handoff.h"
#include "loader/forward/server_link.h"

namespace migrx {

// Nanoseconds.
struct ForwardLimits {
  uint64_t connect_ns = 5'000'000'000;      // the server takes the connection
  uint64_t first_word_ns = 30'000'000'000;  // a peer that has never said anything keeps its place so long
  // One side has ended, and nothing moves any more.
  uint64_t linger_ns = 10'000'000'000;
};

// Sans-IO. It is the connection's worker, and speaks for the control thread: from the constructor to over()
// one thread alone touches the Handoff.
class Forward {
 public:
  // What ended it.
  enum class End : uint8_t {
    none,         // nothing yet
    orderly,      // both sides have closed, and have everything
    peer_gone,    // reset, or given up by TCP
    unreachable,  // the server does not take the connection
    server_gone,  // its connection has failed
    silent,       // the peer has never said anything
    lingering,    // one side has ended and the other goes on without a word
    given_up,     // by stop()
  };

  // connection: until over(); whoever takes it back has only to retire() it. now_ns: monotonic clock.
  Forward(Handoff& connection, std::unique_ptr<ServerLink> server, const ForwardLimits& limits,
          uint64_t now_ns) noexcept;

  // A turn; returns how much moved: slices and messages. Bounded by kTurn, so that many take turns.
  static constexpr uint32_t kTurn = 256;
  uint32_t do_work(uint64_t now_ns) noexcept;
  // Ends it now, whatever is under way. over() from then on.
  void stop() noexcept;

  // The connection is detached and not touched any more.
  [[nodiscard]] bool over() const noexcept { return phase_ == Phase::over; }
  [[nodiscard]] End end() const noexcept { return end_; }
  // The server's descriptor while its bytes are wanted; -1: they are not.
  [[nodiscard]] int wake_fd() const noexcept;
  [[nodiscard]] Handoff& connection() const noexcept { return connection_; }

  // ---- Any thread
  Counter bytes_to_server;
  Counter bytes_to_peer;

 private:
  enum class Phase : uint8_t { opening, flowing, resetting, over };
  static constexpr std::size_t kInboxBytes = 4096;  // as much as TCP holds to be sent

  uint32_t to_server() noexcept;
  uint32_t to_peer() noexcept;
  // The slices that hold these bytes are given back.
  void take_slices(std::size_t bytes) noexcept;
  void look_at_ends(uint32_t work, uint64_t now_ns) noexcept;
  void fail(End why) noexcept;
  void let_go() noexcept;

  Handoff& connection_;
  const std::unique_ptr<ServerLink> server_;
  const ForwardLimits limits_;
  Phase phase_ = Phase::opening;
  End end_ = End::none;
  uint64_t moved_ns_;                           // when something moved last, or it began
  uint32_t slice_used_ = 0;                     // bytes of the oldest slice that the server has
  bool peer_ended_ = false;                     // the server has everything and knows it
  bool server_ended_ = false;                   // nothing more comes from it
  bool closed_ = false;                         // the peer will get its FIN
  std::array<std::byte, kInboxBytes> inbox_{};  // from the server
  std::size_t inbox_first_ = 0;
  std::size_t inbox_end_ = 0;
};

// For people: "the peer was reset or is gone".
[[nodiscard]] const char* to_text(Forward::End end) noexcept;

}  // namespace migrx

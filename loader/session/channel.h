// One connection as the loader sees it. Its worker takes slices (pieces of the TCP stream, still in packet
// buffers) from the hand-off ring (dataplane/handoff/handoff.h), feeds them to a parser
// (loader/stream/parser.h), and gives the buffers back to the poll core.
//
//   identifying ──greeting──▶ streaming ◀──▶ parked         any ──error, or session over──▶ draining ──▶ over
//        └──▶ waiting ──admitted──┘ └──end of stream──▶ draining
//   any, of what may be a multifd channel ──refused, or session failed──▶ dismissed ──reset──▶ draining
//
// The greeting is the bytes that tell whose connection this is: four bytes of most strangers, a multifd
// channel's init packet, the main channel's header and configuration. The greeting is kept, and the parser
// gets it first.
//
// Waiting: the connection belongs to this migration, but it is not its turn yet (admission.h).
// Parked: the parser cannot go on now, most often because a main or multifd channel waits for the others at
// the flush barrier. Its slices stay in the ring, the ring fills, and TCP's window closes. Draining: the
// stream is over, but page data of this channel may still be on its way to another node's worker. With one
// node draining ends at once.
// Dismissed: the stream is of no use, and what comes is dropped, until the control thread has the connection
// reset. It takes its time for that with a multifd channel: in QEMU (migration/multifd.c) a sender thread
// that fails makes the others leave, and one that leaves with a SYNC still to send does not wake the
// migration thread that waits for it in multifd_send_sync_main(). Such a source keeps its guest, and can
// never migrate again. A channel that is reset while main is not fails with the next pages, and a SYNC
// follows pages at once. So main is reset first, and the source has time to close its channels itself.
#pragma once

#include <cstdint>
#include <memory>

#include "dataplane/handoff/handoff.h"
#include "loader/stream/parser.h"

namespace migrx {

// What becomes of a connection that introduces itself.
struct Introduction {
  enum class Kind : uint8_t {
    more,      // not decided yet: at most `wanted` bytes in all, more than there are, may do
    waits,     // one of ours whose time has not come: ask_again() in each turn
    stranger,  // the connection is refused and nothing else happens
    admitted,  // `parser` takes the stream, from the greeting's first byte on
  };
  Kind kind = Kind::stranger;
  std::size_t wanted = 0;
  ChannelParser* parser = nullptr;  // owned by the directory
  // Of a stranger that began as a multifd channel does: the bytes that such a one says unasked. 0: another.
  std::size_t multifd_greeting = 0;
  Claim claim = Claim::none;

  [[nodiscard]] static Introduction refused_multifd(std::size_t greeting,
                                                    Claim claim = Claim::none) noexcept {
    return {Kind::stranger, 0, nullptr, greeting, claim};
  }
  [[nodiscard]] static Introduction needs(std::size_t bytes) noexcept { return {Kind::more, bytes, nullptr}; }
  [[nodiscard]] static Introduction as(ChannelParser& parser) noexcept {
    return {Kind::admitted, 0, &parser};
  }
};

// Knows which connections belong to a session and gives them parsers. Called on worker threads.
class ChannelDirectory {
 public:
  static constexpr std::size_t kMagicBytes = 4;
  static constexpr std::size_t kGreetingMax = 4096;
  virtual ~ChannelDirectory() = default;
  // `greeting`: all that the connection has said so far, up to kGreetingMax bytes; never `more` for so many.
  virtual Introduction identify(Bytes greeting, Handoff& connection, uint32_t worker) noexcept = 0;
  // Of a connection that waits. Never `more`.
  virtual Introduction ask_again(Handoff& /*connection*/, uint32_t /*worker*/) noexcept { return {}; }
  // A connection that waits has ended, unread. What it said may be whole: `waits` or `stranger`.
  virtual Introduction left(const Handoff& /*connection*/, StreamEnd /*end*/) noexcept { return {}; }
  // A channel that had been identified failed, or ended too early: the whole session fails with this error.
  virtual void channel_failed(const StreamError& error) noexcept = 0;
  // The session has ended (well or not): channels let go of their connections.
  [[nodiscard]] virtual bool over() const noexcept = 0;
  // A channel with Claim::surplus brought more than a greeting and one SYNC. That may be no page (another
  // SYNC, or the overhead of TLS): where it matters, a migration is refused rather than taken without pages.
  virtual void pages_dropped() noexcept {}
  // Multifd channels that are dismissed are to be read until they are reset.
  [[nodiscard]] virtual bool holds_dismissed() const noexcept { return false; }
};

// Owned by the session; used by one worker thread, apart from what is marked otherwise.
class Channel {
 public:
  // worker: index of the one that will serve it.
  Channel(Handoff& connection, ChannelDirectory& directory, uint32_t worker) noexcept
      : connection_(connection),
        directory_(directory),
        worker_(worker),
        greeting_(std::make_unique<std::byte[]>(ChannelDirectory::kGreetingMax)) {}

  // A few hundred bytes of stream may ask for 128 pages to be cleared or inflated, and the worker's other
  // channels would wait for all of that. So bytes written to memory beyond those that came use up the turn,
  // too: so many of them count as one slice.
  static constexpr uint32_t kExpandedBytesPerSlice = 1500;

  // A turn. Feeds at most `slices_max` slices to the parser, fewer when the parser writes more bytes than
  // came. What one slice writes beyond the whole turn is owed: the channel skips the turns that follow.
  // Returns the number of slices worked on (slices_max for a turn that was skipped), or 1 when a parked
  // parser moved on. Hot.
  uint32_t do_work(uint32_t slices_max) noexcept;

  // The worker may forget this channel: its connection has been given back.
  [[nodiscard]] bool over() const noexcept { return state_ == State::over; }
  // The worker's last call.
  void set_let_go() noexcept { let_go_.store(true, std::memory_order_release); }

  // ---- Any thread ----
  // Whose channel it is: constant.
  [[nodiscard]] const ChannelDirectory& directory() const noexcept { return directory_; }
  [[nodiscard]] Handoff& connection() const noexcept { return connection_; }
  [[nodiscard]] uint32_t worker() const noexcept { return worker_; }
  [[nodiscard]] bool identified() const noexcept { return identified_.load(std::memory_order_acquire); }
  // Bytes that it must have said to be more than silent; 0: it has introduced itself.
  [[nodiscard]] uint64_t greeting_wanted() const noexcept { return wanted_.load(std::memory_order_relaxed); }
  // The stream is encrypted, and its plaintext has not told yet whose connection this is.
  [[nodiscard]] bool secured() const noexcept { return secured_.load(std::memory_order_acquire); }
  // A stranger's connection, or one that ended before it said what it is: the control thread resets it.
  [[nodiscard]] bool refused() const noexcept { return refused_.load(std::memory_order_acquire); }
  // It is one, or has not said what it is. Final when the channel is refused.
  [[nodiscard]] bool may_be_multifd() const noexcept {
    return may_be_multifd_.load(std::memory_order_relaxed);
  }
  // When it is refused: a sender that has said more than so many bytes was asked for more, and has sent it.
  [[nodiscard]] uint64_t said_unasked() const noexcept {
    return said_unasked_.load(std::memory_order_relaxed);
  }
  // Final when the channel is refused.
  [[nodiscard]] Claim claim() const noexcept { return claim_.load(std::memory_order_relaxed); }
  // The worker will not touch this object again. Pairs with set_let_go().
  [[nodiscard]] bool let_go() const noexcept { return let_go_.load(std::memory_order_acquire); }
  [[nodiscard]] StreamEnd end() const noexcept { return end_.load(std::memory_order_acquire); }
  // The parser was parked, and nothing but the end of the stream follows.
  [[nodiscard]] bool ends_parked() const noexcept { return ends_parked_.load(std::memory_order_relaxed); }
  Counter slices;          // slices taken
  Counter owed_turns;      // turns skipped because earlier ones wrote more bytes than came
  Counter parked_turns;    // turns in which the parser could not go on, or was not admitted yet
  Counter ring_depth_max;  // most slices seen waiting: how far the worker fell behind

 private:
  enum class State : uint8_t { identifying, waiting, streaming, parked, dismissed, draining, over };

  // Each returns the bytes used; fewer than given means the parser parked or failed.
  std::size_t identify(Bytes piece) noexcept;
  std::size_t feed(Bytes piece) noexcept;
  void introduce(const Introduction& introduction) noexcept;
  // The session is over.
  void give_up() noexcept;
  // What comes from here on is of no use.
  void dismiss() noexcept;
  // said: bytes of the stream that a sender says unasked.
  void refuse(uint64_t said, Claim claim) noexcept;
  // What the parser has not taken of the greeting.
  void replay() noexcept;
  void wait_on() noexcept;
  // Of the slices of `run`, from the first: how many the parser took as they are.
  uint32_t take_page_data(std::span<const Slice> run) noexcept;
  void stream_ended(StreamEnd end) noexcept;
  void release_unneeded() noexcept;
  uint32_t drop(uint32_t slices_max) noexcept;
  uint32_t drain() noexcept;

  Handoff& connection_;
  ChannelDirectory& directory_;
  const uint32_t worker_;
  ChannelParser* parser_ = nullptr;  // owned by the session
  State state_ = State::identifying;
  uint32_t slice_used_ = 0;      // bytes of the oldest unread slice that the parser has taken
  uint64_t advanced_bytes_ = 0;  // stream offset after the last slice advanced over
  uint64_t released_bytes_ = 0;  // stream offset after the last slice released
  uint64_t expanded_seen_ = 0;   // of the parser's expanded_bytes()
  uint64_t owed_bytes_ = 0;      // expanded, and not yet taken from a turn
  uint64_t dropped_bytes_ = 0;   // since it was dismissed
  const std::unique_ptr<std::byte[]> greeting_;
  std::size_t greeting_bytes_ = 0;
  std::size_t replayed_ = 0;  // of them, to the parser

  std::atomic<uint64_t> wanted_{ChannelDirectory::kMagicBytes};
  std::atomic<bool> identified_{false};
  std::atomic<bool> secured_{false};
  std::atomic<bool> refused_{false};
  std::atomic<Claim> claim_{Claim::none};
  std::atomic<bool> may_be_multifd_{true};
  std::atomic<uint64_t> said_unasked_{0};
  std::atomic<bool> let_go_{false};
  std::atomic<bool> ends_parked_{false};
  std::atomic<StreamEnd> end_{StreamEnd::none};
};

}  // namespace migrx

// One multifd channel: init packet, packets, payloads to pages, SYNCs to the barrier (QEMU
// migration/multifd.c, multifd_recv_thread).
//
//   init ─▶ prefix ─▶ body ─▶ payload ─▶ pages_done ─▶ prefix …     (no normal pages: body ─▶ pages_done)
//               │                           │ SYNC
//               └▶ device_state (refused)   └▶ copies (all complete?) ─▶ barrier (released?) ─▶ prefix …
//
// A packet (multifd_packet.h) is a header, of which `prefix` is the first 12 bytes and `body` the rest, and
// then the bytes of the pages that the header names. Normal pages are those whose bytes follow; zero pages
// are only named. A SYNC is a flag in the header: the source has sent all pages of this round on this
// channel. Copies are page pieces that a worker of another node writes (loader/ram/node_router.h).
//
// Rules beyond the layout (protocol documented at QEMU's functions named above):
// - Until SYNC 0 has been released the block list may not be known, so nothing but a bare SYNC may come.
// - A SYNC that carries data (sources up to 8.2) takes effect after its payload.
// - Empty packets without SYNC (sources up to 8.2 send them after such a SYNC) mean nothing.
// - packet_num is not enforced: 7.2 repeats numbers.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>

#include "dataplane/handoff/counter.h"
#include "loader/multifd/decoder.h"
#include "loader/multifd/multifd_packet.h"
#include "loader/multifd/run_writer.h"
#include "loader/ram/node_router.h"
#include "loader/stream/byte_reader.h"
#include "loader/stream/flush_barrier.h"
#include "loader/stream/parser.h"
#include "loader/stream/pass_counter.h"
#include "loader/stream/round_count.h"

namespace migrx {

// Written by the channel's worker, read by anybody.
struct MultifdCounters {
  Counter packets;
  Counter syncs;
  Counter normal_pages;
  Counter zero_pages_written;
  Counter zero_pages_skipped;  // fresh memory that was zero already
  Counter payload_bytes;
  Counter routed_bytes;  // of those, copied by another node's worker
  Counter begun_anew;    // passes over RAM after the first, as this channel sees them
};

// What a channel shares with the rest of its session. All must outlive the channel.
struct MultifdSession {
  FlushBarrier* barrier = nullptr;
  const RamBlockList* blocks = nullptr;
  const PageKernels* kernels = nullptr;
  MultifdCompression compression = MultifdCompression::none;
  DecoderLimits decoder_limits;
  RoundCount* rounds = nullptr;  // null: rounds are not counted
};

class MultifdChannel final : public ChannelParser {
 public:
  // Allocates everything. router: of the worker that runs this channel; nullptr with one node.
  // Precondition: is_supported(session.compression).
  explicit MultifdChannel(const MultifdSession& session, const NodeRouter* router = nullptr);

  ParseResult parse(Bytes piece) noexcept override;
  std::size_t take_page_data(std::span<const Slice> slices) noexcept override;
  [[nodiscard]] MutableBytes page_place(std::size_t from, std::size_t to) noexcept override;
  void page_data_written(std::size_t bytes) noexcept override;
  [[nodiscard]] bool may_be_multifd() const noexcept override { return true; }
  [[nodiscard]] bool ready() noexcept override;
  // Between packets this returns no error: without return path a source closes its channels as soon as the
  // last byte is on its way, before main is through. Whether the end came too early shows at the barrier: a
  // session whose main channel waits for a SYNC of an ended channel fails with closed_too_early().
  StreamError end_of_stream() noexcept override;
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  [[nodiscard]] uint64_t offset() const noexcept override { return in_.offset(); }
  [[nodiscard]] uint64_t needed_from() noexcept override;

  // Any thread; nothing before the init packet. Who may have which id is the session's to say (Admission).
  [[nodiscard]] std::optional<MultifdId> id() const noexcept {
    const int32_t number = id_.load(std::memory_order_acquire);
    if (number < 0) return std::nullopt;
    return MultifdId{static_cast<uint32_t>(number)};
  }
  // Any thread, when there is an id(): the init packet as it came.
  [[nodiscard]] const std::array<std::byte, kMultifdInitBytes>& init_packet() const noexcept {
    return init_packet_;
  }
  // SYNCs that have taken effect.
  [[nodiscard]] Epoch epoch() const noexcept { return epoch_; }
  [[nodiscard]] const MultifdCounters& counters() const noexcept { return counters_; }
  // For the session, after end_of_stream().
  [[nodiscard]] StreamError closed_too_early() const noexcept;

 private:
  enum class State : uint8_t {
    init,
    prefix,
    body,
    device_state,
    payload,
    pages_done,
    copies,
    barrier,
    failed
  };
  // What a step of the machine came to.
  enum class Step : uint8_t { again, need_more, parked, failed };

  Step step() noexcept;
  Step on_init(const std::byte* bytes) noexcept;
  Step on_body(const std::byte* body) noexcept;
  Step resolve_pages(const MultifdPacket& packet) noexcept;
  void note_run() noexcept;
  void note_packet(const MultifdPacket& packet) noexcept;
  void clear_zero_pages(const MultifdPacket& packet) noexcept;
  Step on_payload() noexcept;
  Step write_payload() noexcept;
  Step route_payload() noexcept;
  Step decode_payload() noexcept;
  Step on_pages_done() noexcept;
  Step on_copies_done() noexcept;
  Step fail_decode(DecodeStatus status) noexcept;
  Step fail(const StreamError& error) noexcept;
  [[nodiscard]] ChannelName name() const noexcept;

  const MultifdSession session_;
  const NodeRouter* const router_;
  const std::unique_ptr<PageDecoder> decoder_;  // none: payloads are written as they come
  ByteReader in_;
  RunWriter pages_;

  State state_ = State::init;
  std::array<std::byte, kMultifdInitBytes> init_packet_{};  // published by id_
  std::atomic<int32_t> id_{-1};                             // -1: not known yet
  Epoch epoch_;                                             // also the number of the SYNC that comes next
  uint64_t packet_offset_ = 0;
  uint64_t piece_offset_ = 0;  // of the piece being parsed

  // The packet at hand.
  uint32_t flags_ = 0;
  uint32_t payload_left_ = 0;
  uint32_t runs_ = 0;
  uint32_t run_ = 0;       // routed: index of the run being handed over
  uint32_t run_done_ = 0;  // routed: bytes of it
  CopyLane* lane_ = nullptr;
  RamBlock* block_ = nullptr;  // of the last packet with pages; the next one is most likely of the same
  PageTarget target_;
  std::array<PageRun, kMultifdPagesMax> page_runs_{};

  RoutedBytes routed_;
  PassCounter passes_;
  Epoch noted_epoch_;  // of session_.rounds
  MultifdCounters counters_;
  StreamError error_;
};

}  // namespace migrx

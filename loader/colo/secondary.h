// The secondary of a COLO pair, as far as it is possible outside QEMU: it keeps the guest as it was at the
// last checkpoint, and gives it to the destination when the operator decides for failover.
//
//   off ─ENABLE_COLO─▶ migrating ─device state complete─▶ waiting ◀──finished── loading
//                                                            │  └──commit──────────▲
//                                                            └─fail_over()─▶ failed_over: replay()
//
// It stands between the session and the destination (a QEMU, or files). The destination gets the
// source's stream at once up to the last PART of RAM, and the rest (RAM's END and the device state of
// the last finished checkpoint) at failover. The destination's guest therefore never runs before
// failover: see docs/colo.md.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "dataplane/handoff/spsc_ring.h"
#include "loader/colo/colo_events.h"
#include "loader/colo/ram_cache.h"
#include "loader/destination/tail_detector.h"
#include "loader/main/forwarding_events.h"
#include "loader/stream/error.h"

namespace migrx {

class PrivateMemory;

class ColoSecondary final : public ForwardingEvents, public ColoEvents {
 public:
  enum class Stage : uint8_t { off, migrating, waiting, loading, failed_over };

  // outgoing: the destination's events. available: bytes that the host can still give (called when memory is
  // to be promised). All references must outlive this.
  ColoSecondary(MainEvents& outgoing, RamBlockList& blocks, const PageKernels& kernels,
                std::function<uint64_t()> available);
  ~ColoSecondary() override;
  ColoSecondary(const ColoSecondary&) = delete;
  ColoSecondary& operator=(const ColoSecondary&) = delete;

  // Before listening: memory for the blocks known so far and for the device state. Empty: it is there;
  // otherwise what to do.
  [[nodiscard]] std::string reserve();

  // ---- Control thread ----
  [[nodiscard]] bool next_message(ColoMessage& message) noexcept { return messages_.pop(message); }
  // Ends COLO in favour of the last finished checkpoint; what has come of the next one is dropped. False: not
  // in COLO yet, or a checkpoint is being loaded (ask again until it has finished).
  [[nodiscard]] bool fail_over() noexcept;
  // After fail_over(), when main's worker has let go of its channel: gives the destination what it lacks.
  // True: all of it has been taken; false: call again.
  [[nodiscard]] bool replay() noexcept;

  // ---- Any thread ----
  [[nodiscard]] Stage stage() const noexcept { return stage_.load(std::memory_order_acquire); }
  // In COLO an error of the stream, or its end, is not the end of the guest: the operator decides. Takes the
  // first one; false: not in COLO.
  bool lose_source(const StreamError& error) noexcept;
  [[nodiscard]] bool source_lost() const noexcept { return lost_.load(std::memory_order_acquire) == 2; }
  // Valid when source_lost().
  [[nodiscard]] const StreamError& loss() const noexcept { return loss_; }
  [[nodiscard]] const ColoRamCache& cache() const noexcept { return cache_; }
  Counter checkpoints;  // finished, after the initial migration

  // ---- MainEvents: main's worker ----
  [[nodiscard]] bool writable() noexcept override;
  StreamError on_command(MigCommand command, Bytes payload) override;
  StreamError on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) override;
  void on_ram_section_begin(SectionType type, uint32_t section_id) noexcept override;
  void on_ram_section_end(SectionType type, uint32_t section_id, bool has_footer) noexcept override;
  void on_epoch_closed(Epoch epoch) noexcept override;
  void on_ram_complete() noexcept override;
  [[nodiscard]] std::size_t on_tail(Bytes bytes) noexcept override;

  // ---- ColoEvents: main's worker ----
  [[nodiscard]] bool enabled() const noexcept override { return stage() != Stage::off; }
  [[nodiscard]] bool copy_some() noexcept override;
  [[nodiscard]] Tail tail() const noexcept override;
  void begin_checkpoints() noexcept override;
  [[nodiscard]] bool send(ColoMessage message) noexcept override { return messages_.push(message); }
  void state_begins() noexcept override { coming().bytes = 0; }
  void state_bytes(Bytes bytes) noexcept override;
  [[nodiscard]] bool commit() noexcept override;
  [[nodiscard]] bool load_some() noexcept override;

 private:
  // Device state as it came; memory for kColoStateBytesMax that costs nothing until it is used.
  struct DeviceState {
    std::unique_ptr<PrivateMemory> memory;
    uint64_t bytes = 0;
  };
  [[nodiscard]] DeviceState& coming() noexcept { return states_[1 - finished_]; }
  [[nodiscard]] std::string room_for(uint64_t bytes) const;

  RamBlockList& blocks_;
  const std::function<uint64_t()> available_;
  ColoRamCache cache_;
  std::atomic<Stage> stage_{Stage::off};
  SpscRing<ColoMessage> messages_{8};  // main's worker -> control thread; at most two are under way

  // Main's worker; the control thread from failover on, when that worker has let go of the channel.
  std::array<DeviceState, 2> states_;
  std::size_t finished_ = 0;  // which of them is that of the last finished checkpoint
  TailDetector detector_;
  bool too_long_ = false;
  bool return_path_ = false;
  bool ram_started_ = false;
  bool in_end_ = false;  // RAM's END section of the initial migration has begun: held back
  uint32_t ram_section_ = 0;
  bool end_has_footer_ = false;
  bool end_replayed_ = false;
  uint64_t replayed_ = 0;

  std::atomic<uint32_t> lost_{0};  // 0: no; 1: loss_ is being written; 2: it is there
  StreamError loss_;
};

}  // namespace migrx

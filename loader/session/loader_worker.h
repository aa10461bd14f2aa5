// A loader worker: the agent that moves bytes from hand-off rings into guest RAM.
#pragma once

#include <vector>

#include "dataplane/handoff/agent.h"
#include "dataplane/handoff/spsc_ring.h"
#include "loader/session/channel.h"

namespace migrx {

// Something else a worker does in turn with its channels: decompress pages for the main channel, write page
// runs that another node's worker parsed. Called on the worker's thread.
class WorkerTask {
 public:
  virtual ~WorkerTask() = default;
  virtual uint32_t do_work() noexcept = 0;
};

// One per loader core. Channels come by a ring from the control thread and leave when they are over; each
// turn gives every channel of a session the same budget of slices, so that no channel starves another (QEMU's
// main channel likewise yields every 32,768 records, migration/ram.c ram_load_precopy). Of several sessions
// each gets the same: the channels of one that has fewer get larger budgets.
class LoaderWorker final : public Agent {
 public:
  // Slices per channel and turn: 64 slices of 1448 bytes are some 23 pages, about 5 µs of copying.
  // Small enough for a quiet channel's SYNC to be noticed quickly, large enough for the turn's fixed
  // costs to vanish.
  static constexpr uint32_t kSlicesPerTurn = 64;

  // A session with a single channel beside one with many gets no more than so many times the usual budget in
  // a turn: the others wait for it meanwhile.
  static constexpr uint32_t kShareMax = 16;

  // A channel that flows but brought less than this is left alone for a while, so that more gathers: ring
  // lines that both sides use at the same time cost each of them some 250 cycles, and a look at a few slices
  // costs as many lines as one at a full turn's. The while is short beside what a barrier costs otherwise,
  // and beside any ring's depth.
  static constexpr uint32_t kSlicesWorthALook = kSlicesPerTurn;
  static constexpr uint64_t kGatherNs = 8'000;

  // While others flow, a channel that brought nothing is left alone for so long, times the number of
  // channels: looking at an idle one costs some ten lines, and with hundreds of them that was most of a turn.
  // After a turn in which no channel brought anything, all are looked at.
  static constexpr uint64_t kIdleNsPerChannel = 256;

  // channels_max: bound of channels that this worker serves at a time. Allocates here only.
  explicit LoaderWorker(uint32_t channels_max);

  uint32_t do_work(uint64_t now_ns) noexcept override;
  [[nodiscard]] const char* name() const noexcept override { return "loader"; }

  // ---- Before the worker's thread starts ----
  void add_task(WorkerTask& task) { tasks_.push_back(&task); }

  // ---- Control thread ----
  [[nodiscard]] bool has_room() const noexcept { return serving() < channels_max_; }
  // False: full. The channel must live until it is over and this worker has let go of it (served() tells).
  [[nodiscard]] bool attach(Channel& channel) noexcept {
    if (!has_room()) return false;
    attached_.add();
    return incoming_.push(&channel);
  }
  // Channels that have been attached and not let go of. acquire pairs with do_work().
  [[nodiscard]] uint64_t serving() const noexcept {
    return attached_.read() - let_go_.load(std::memory_order_acquire);
  }

 private:
  void share_out() noexcept;

  const uint32_t channels_max_;
  SpscRing<Channel*> incoming_;  // control thread -> worker
  struct Served {
    Channel* channel = nullptr;
    bool flows = false;  // its last turn brought something
    uint32_t slices_max = kSlicesPerTurn;
    uint64_t not_before_ns = 0;
  };
  std::vector<Served> channels_;     // worker only; capacity channels_max_, never grows
  bool busy_ = false;                // worker only: the last turn brought something
  std::vector<WorkerTask*> tasks_;   // constant after start
  Counter attached_;                 // written by the control thread
  std::atomic<uint64_t> let_go_{0};  // written by the worker
};

}  // namespace migrx

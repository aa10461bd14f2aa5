// Loads a migration stream from a file or a pipe: what `migrate file:` or `exec:cat > FILE` wrote, a
// mapped-ram snapshot, or either in a libvirt save image.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "loader/main/forwarding_events.h"
#include "loader/main/main_channel.h"
#include "loader/session/block_table.h"
#include "loader/session/destination.h"
#include "loader/snapshot/page_reader.h"
#include "loader/snapshot/snapshot_input.h"

namespace migrx {

struct FileLoadSettings {
  MainSettings main;  // mapped_ram is found out from the file
  uint32_t readers = 1;
  std::vector<CpuId> cpus;
  std::function<uint64_t()> now_ns;
  // As in SessionLimits (loader/session/session_control.h); 0 means for ever.
  uint64_t stall_ns =
      60'000'000'000;  // a pipe brings nothing, or the destination takes nothing that waits for it
  uint64_t destination_ns = 300'000'000'000;  // it has all of it, and says nothing
};

// Moments in nanoseconds of the clock given; 0: not yet.
struct FileLoadMoments {
  uint64_t first_byte = 0;
  uint64_t blocks_known = 0;
  uint64_t ram_complete = 0;
  uint64_t last_byte = 0;
};

// How far it is. Pages of a mapped-ram snapshot are counted apart from the stream, which jumps over them.
struct FileLoadProgress {
  uint64_t position = 0;     // of the stream, in the input
  uint64_t pages_done = 0;   // of a mapped-ram snapshot, zero pages included
  uint64_t pages_total = 0;  // 0: not mapped-ram, or not known yet
};

// One thread, which run() keeps until the end; the readers of a mapped-ram file are its own.
class FileLoader final : private ForwardingEvents {
 public:
  // input: has been opened, so that its kind was known before memory was touched. All outlive the loader.
  FileLoader(FileLoadSettings settings, SnapshotInput& input, BlockTable& blocks, Destination& destination,
             const PageKernels& kernels, CompressJobs& compress);
  ~FileLoader() override;

  // Loads all of it and waits for the destination's verdict. `turn` is called with the stream's
  // position at least every 50 ms (as far as the disk allows); when it returns true the load is
  // cancelled. No error: complete.
  StreamError run(const std::function<bool(uint64_t)>& turn);
  // For `turn`, and after run().
  [[nodiscard]] FileLoadProgress progress() const;

  [[nodiscard]] const MainCounters& counters() const noexcept { return channel_.counters(); }
  [[nodiscard]] const PageReader* page_reader() const noexcept {
    return reader_.get();
  }  // null: not mapped-ram
  [[nodiscard]] const FileLoadMoments& moments() const noexcept { return moments_; }
  [[nodiscard]] const std::string& source_machine() const noexcept { return machine_; }
  [[nodiscard]] uint64_t bytes_read() const noexcept { return bytes_read_; }

 private:
  // ---- MainEvents ----
  StreamError on_configuration(const Configuration& configuration) override;
  StreamError on_ram_start(const SectionHeader& section, std::span<const BlockEntry> entries) override;
  void on_ram_complete() noexcept override;

  StreamError feed();
  StreamError load_pages(std::span<const BlockEntry> entries);
  StreamError await_verdict();
  // True: cancelled.
  [[nodiscard]] bool take_turn() { return (*turn_)(input_.position()); }
  [[nodiscard]] StreamError cancelled() const;

  FileLoadSettings settings_;
  SnapshotInput& input_;
  BlockTable& blocks_;
  Destination& destination_;
  FlushBarrier barrier_{0};
  std::unique_ptr<PageReader> reader_;  // of a mapped-ram snapshot
  MainChannel channel_;
  const std::function<bool(uint64_t)>* turn_ = nullptr;  // while run() runs
  FileLoadMoments moments_;
  std::string machine_;
  uint64_t bytes_read_ = 0;
};

}  // namespace migrx

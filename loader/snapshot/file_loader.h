// Loads a migration stream from a file: what `migrate file:` or `exec:cat > FILE` wrote, or a mapped-ram
// snapshot.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "loader/main/forwarding_events.h"
#include "loader/main/main_channel.h"
#include "loader/session/block_table.h"
#include "loader/session/destination.h"
#include "loader/snapshot/page_reader.h"

namespace migrx {

struct FileLoadSettings {
  std::string path;
  uint64_t offset = 0;  // where the stream begins in the file
  MainSettings main;    // mapped_ram is found out from the file
  uint32_t readers = 1;
  std::vector<CpuId> cpus;
  std::function<uint64_t()> now_ns;
};

// Moments in nanoseconds of the clock given; 0: not yet.
struct FileLoadMoments {
  uint64_t first_byte = 0;
  uint64_t blocks_known = 0;
  uint64_t ram_complete = 0;
  uint64_t last_byte = 0;
};

// One thread, which run() keeps until the end; the readers of a mapped-ram file are its own.
class FileLoader final : private ForwardingEvents {
 public:
  FileLoader(FileLoadSettings settings, BlockTable& blocks, Destination& destination,
             const PageKernels& kernels, CompressJobs& compress);
  ~FileLoader() override;

  // Loads all of it and waits for the destination's verdict. `turn` is called now and then with the stream's
  // position; when it returns true the load is cancelled. No error: complete.
  StreamError run(const std::function<bool(uint64_t)>& turn);

  [[nodiscard]] const MainChannel& main_channel() const noexcept { return *channel_; }
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

  StreamError open();
  StreamError feed(const std::function<bool(uint64_t)>& turn);
  StreamError await_verdict(const std::function<bool(uint64_t)>& turn);
  [[nodiscard]] StreamError cancelled() const;

  FileLoadSettings settings_;
  BlockTable& blocks_;
  Destination& destination_;
  const PageKernels& kernels_;
  CompressJobs& compress_;
  FlushBarrier barrier_{0};
  std::unique_ptr<MainChannel> channel_;
  std::unique_ptr<PageReader> reader_;
  std::atomic<bool> stop_{false};
  FileLoadMoments moments_;
  std::string machine_;
  int fd_ = -1;
  uint64_t position_ = 0;  // in the file, of the next byte to be read
  uint64_t bytes_read_ = 0;
};

}  // namespace migrx

// Loads a migration stream from a file: what `migrate file:` or `exec:cat > FILE` wrote, or a mapped-ram
// snapshot.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

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
class FileLoader final : private MainEvents {
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
  [[nodiscard]] bool writable() noexcept override { return destination_.events().writable(); }
  StreamError on_header(uint32_t version) override { return destination_.events().on_header(version); }
  StreamError on_configuration(const Configuration& configuration) override;
  StreamError on_command(MigCommand command, Bytes payload) override {
    return destination_.events().on_command(command, payload);
  }
  StreamError on_ram_start(const SectionHeader& section, std::span<const BlockEntry> entries) override;
  void on_ram_section_begin(SectionType type, uint32_t id) noexcept override {
    destination_.events().on_ram_section_begin(type, id);
  }
  void on_ram_section_end(SectionType type, uint32_t id, bool footer) noexcept override {
    destination_.events().on_ram_section_end(type, id, footer);
  }
  void on_epoch_closed(uint64_t k) noexcept override { destination_.events().on_epoch_closed(k); }
  void on_ram_complete() noexcept override;
  void on_other_section_begin(const SectionHeader& section) noexcept override {
    destination_.events().on_other_section_begin(section);
  }
  [[nodiscard]] std::size_t on_verbatim(Bytes bytes) noexcept override {
    return destination_.events().on_verbatim(bytes);
  }
  void on_other_section_end(const SectionHeader& section) noexcept override {
    destination_.events().on_other_section_end(section);
  }
  [[nodiscard]] std::size_t on_tail(Bytes bytes) noexcept override {
    return destination_.events().on_tail(bytes);
  }

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

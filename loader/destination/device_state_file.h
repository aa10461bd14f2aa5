// No destination QEMU: the device state goes to a file (tests, forensics). The source is told that all is
// well when RAM and device state are complete, although nobody will run the guest.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "loader/destination/byte_fifo.h"
#include "loader/destination/peer_memory.h"
#include "loader/destination/tail_detector.h"
#include "loader/session/destination.h"

namespace migrx {

struct DeviceStateLimits {
  // After RAM is complete: no byte came for that long (source_silent()), and the state has not ended. Damage
  // to the VM description at its end would else leave source and receiver waiting for each other. 0: for
  // ever.
  uint64_t stall_ns = 0;
  // A PC has about 100 KiB, and what belongs in the gigabytes (VFIO) is not received at all.
  uint64_t bytes_max = uint64_t{1} << 30;
};

class DeviceStateFile final : public Destination, private MainEvents {
 public:
  // path: where the opaque tail goes; empty: it is counted and dropped. files: the guest's memory, which must
  // be where its paths lead, or nobody could find it after the source has given it away. fifo_bytes: a PC's
  // whole device state; more only closes main's window for a moment.
  explicit DeviceStateFile(std::string path, const DeviceStateLimits& limits = {},
                           std::vector<SharedFile> files = {}, std::size_t fifo_bytes = 1 << 20);
  ~DeviceStateFile() override;
  DeviceStateFile(const DeviceStateFile&) = delete;
  DeviceStateFile& operator=(const DeviceStateFile&) = delete;

  // ---- Destination: control thread ----
  [[nodiscard]] MainEvents& events() noexcept override { return *this; }
  uint32_t do_work(uint64_t now_ns) override;
  [[nodiscard]] Verdict verdict() const noexcept override { return verdict_; }
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  void source_ended() override { source_ended_ = true; }
  void source_silent(uint64_t ns) override;
  void abandon() override {}
  [[nodiscard]] uint64_t bytes() const noexcept { return detector_.bytes(); }

 private:
  // ---- MainEvents: main's worker ----
  [[nodiscard]] bool writable() noexcept override { return true; }
  StreamError on_header(uint32_t) override { return {}; }
  StreamError on_configuration(const Configuration&) override { return {}; }
  StreamError on_command(MigCommand, Bytes) override { return {}; }
  StreamError on_ram_start(const SectionHeader&, std::span<const BlockEntry>) override { return {}; }
  void on_ram_section_begin(SectionType, uint32_t) noexcept override {}
  void on_ram_section_end(SectionType, uint32_t, bool) noexcept override {}
  void on_epoch_closed(Epoch) noexcept override {}
  void on_ram_complete() noexcept override { ram_complete_.store(true, std::memory_order_release); }
  void on_other_section_begin(const SectionHeader&) noexcept override {}
  [[nodiscard]] std::size_t on_verbatim(Bytes bytes) noexcept override { return bytes.size(); }
  void on_other_section_end(const SectionHeader&) noexcept override {}
  [[nodiscard]] std::size_t on_tail(Bytes bytes) noexcept override { return fifo_.write(bytes); }

  void fail(const char* what);
  void refuse(const StreamError& error);

  const std::string path_;
  const DeviceStateLimits limits_;
  const std::vector<SharedFile> files_;
  ByteFifo fifo_;
  TailDetector detector_;
  std::atomic<bool> ram_complete_{false};
  int fd_ = -1;
  bool source_ended_ = false;
  Verdict verdict_ = Verdict::pending;
  StreamError error_;
};

}  // namespace migrx

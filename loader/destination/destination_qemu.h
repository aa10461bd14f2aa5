// An unmodified destination QEMU, started with -incoming defer and told migrate-incoming unix:PATH, whose RAM
// lies on the files that migrx loads and whose capability x-ignore-shared is on. It gets device state and
// small blocks.
#pragma once

#include <map>
#include <string>

#include "loader/destination/byte_fifo.h"
#include "loader/destination/peer_memory.h"
#include "loader/destination/stream_rewriter.h"
#include "loader/main/return_path.h"
#include "loader/session/destination.h"

namespace migrx {

// "unix:/run/vm0.sock" -> "/run/vm0.sock". False: not that form, or longer than a socket address can be.
[[nodiscard]] bool parse_unix_address(const std::string& text, std::string& path);

class DestinationQemu final : public Destination {
 public:
  // path: of its incoming socket. It is connected when the source's first byte has come: a destination
  // accepts one connection only. addresses: see StreamRewriter. files: those of the file-backed blocks; a
  // destination that maps one of them wrongly is refused before it gets a byte.
  DestinationQemu(std::string path, const RamBlockList& blocks, std::map<std::string, uint64_t> addresses,
                  std::vector<SharedFile> files = {});
  ~DestinationQemu() override;
  DestinationQemu(const DestinationQemu&) = delete;
  DestinationQemu& operator=(const DestinationQemu&) = delete;

  [[nodiscard]] MainEvents& events() noexcept override { return rewriter_; }
  uint32_t do_work(uint64_t now_ns) override;
  [[nodiscard]] Verdict verdict() const noexcept override { return verdict_; }
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  void source_ended() override {}  // the destination knows when it has everything
  void abandon() override;
  // A destination with the capability on says so at once when no device of its own has a say, later
  // otherwise.
  [[nodiscard]] bool switchover_acked() const noexcept override { return switchover_acked_; }
  // Only while do_work() would read it: otherwise whoever polls it would be woken again and again.
  [[nodiscard]] int wake_fd() const noexcept override {
    return connected_ && verdict_ == Verdict::pending && !abandoned_ ? fd_ : -1;
  }
  [[nodiscard]] uint64_t last_sent_ns() const noexcept override { return last_sent_ns_; }
  [[nodiscard]] const std::string& warning() const noexcept override { return warning_; }

 private:
  // For a destination that is started at the same time.
  static constexpr uint64_t kConnectNs = 10'000'000'000;
  // Sent per turn at most, so that the control thread comes round even while the source never stops.
  static constexpr std::size_t kSendBytesMax = 4 << 20;

  bool connect(uint64_t now_ns);
  uint32_t send_some(uint64_t now_ns);
  uint32_t receive_some();
  void disconnect();
  void refuse(const char* what, int error);

  const std::string path_;
  const std::vector<SharedFile> files_;
  ByteFifo fifo_{4 << 20};
  StreamRewriter rewriter_;
  ReturnPathReader reader_;
  int fd_ = -1;
  bool connected_ = false;
  bool abandoned_ = false;  // never connects again: a second destination would get the rest of a stream
  uint64_t connect_since_ns_ = 0;
  uint64_t sent_ = 0;
  uint64_t last_sent_ns_ = 0;
  bool switchover_acked_ = false;
  Verdict verdict_ = Verdict::pending;
  StreamError error_;
  std::string warning_;
};

}  // namespace migrx

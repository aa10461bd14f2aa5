// What `migrx load` reads: a file, a block device, or a pipe. Opened and recognised before any
// memory is touched.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "loader/snapshot/snapshot_format.h"
#include "loader/stream/byte_reader.h"
#include "loader/stream/error.h"

namespace migrx {

// One thread. A pipe is never read without bytes being there, so that its reader can hear signals; a file's
// read takes as long as its disk does.
class SnapshotInput {
 public:
  // path: "-" is standard input. offset: where the stream, or the header around it, begins.
  SnapshotInput(std::string path, uint64_t offset);
  ~SnapshotInput();
  SnapshotInput(const SnapshotInput&) = delete;
  SnapshotInput& operator=(const SnapshotInput&) = delete;

  // Opens it, looks at its first bytes and goes to where QEMU's stream begins. Class io, truncated,
  // bad_stream or unsupported when that is not possible: the text says what to do. `turn` is called at least
  // every 50 ms while a pipe keeps silent; true ends it as cancelled. stall_ns: how long a pipe may be
  // silent, 0: for ever.
  StreamError open(const std::function<bool()>& turn, const std::function<uint64_t()>& now_ns,
                   uint64_t stall_ns);

  enum class Status : uint8_t { bytes, nothing_yet, end, failed };
  struct Result {
    Status status = Status::failed;
    std::size_t bytes = 0;
    int error = 0;  // errno, when failed
  };
  // The next bytes, at most as many as `into` holds. nothing_yet: a pipe's writer is slow; wait() for it.
  Result read(std::span<std::byte> into);
  // Until read() has something, or for 50 ms.
  void wait() const;
  // The stream goes on at this absolute position. Only where seekable().
  void seek(uint64_t position) noexcept { position_ = position; }

  // The error of a pipe that was silent for stall_ns.
  [[nodiscard]] StreamError silent(uint64_t stall_ns) const;
  [[nodiscard]] StreamError failed(int error) const;

  [[nodiscard]] uint64_t position() const noexcept { return position_; }
  [[nodiscard]] bool seekable() const noexcept { return seekable_; }
  [[nodiscard]] bool mapped_ram() const noexcept { return mapped_ram_; }
  // nullopt: no header of libvirt around the stream.
  [[nodiscard]] const std::optional<LibvirtSaveImage>& libvirt() const noexcept { return libvirt_; }
  // "mapped-ram snapshot", "plain stream in a libvirt save image …"; after open().
  [[nodiscard]] std::string description() const;
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  // Bytes that there are; 0: not known (pipes and block devices).
  [[nodiscard]] uint64_t length() const noexcept { return length_; }
  // Stays this object's.
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  using Turn = std::function<bool()>;
  using Clock = std::function<uint64_t()>;

  [[nodiscard]] StreamError open_descriptor();
  // Fills head_ up to `wanted` bytes, or to the end of the input.
  [[nodiscard]] StreamError fill_head(std::size_t wanted, const Turn& turn, const Clock& now_ns,
                                      uint64_t stall_ns);
  // Goes on to `position`, on a pipe by reading.
  [[nodiscard]] StreamError skip_to(uint64_t position, const Turn& turn, const Clock& now_ns,
                                    uint64_t stall_ns);
  [[nodiscard]] StreamError wait_for_pipe(const Turn& turn, const Clock& now_ns, uint64_t stall_ns,
                                          uint64_t& silent_since_ns) const;
  [[nodiscard]] Result read_descriptor(std::span<std::byte> into) const;
  [[nodiscard]] StreamError error(ErrorClass error_class, const std::string& text) const;

  const std::string path_;
  const std::string name_;  // for messages
  const uint64_t offset_;
  int fd_ = -1;
  bool owns_fd_ = false;
  bool seekable_ = false;
  bool mapped_ram_ = false;
  std::optional<LibvirtSaveImage> libvirt_;
  uint64_t length_ = 0;
  uint64_t position_ = 0;        // of the next byte that read() gives
  std::vector<std::byte> head_;  // a pipe's bytes from position_ on that have been read already
};

}  // namespace migrx

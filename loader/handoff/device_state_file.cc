#include "loader/handoff/device_state_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace migrx {

DeviceStateFile::DeviceStateFile(std::string path, std::size_t fifo_bytes)
    : path_(std::move(path)), fifo_(fifo_bytes) {}

DeviceStateFile::~DeviceStateFile() {
  if (fd_ >= 0) ::close(fd_);
}

uint32_t DeviceStateFile::do_work(uint64_t /*now_ns*/) {
  if (verdict_ != Verdict::pending) return 0;
  uint32_t work = 0;
  for (Bytes bytes = fifo_.readable(); !bytes.empty(); bytes = fifo_.readable()) {
    if (!path_.empty() && fd_ < 0) {
      fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
      if (fd_ < 0) {
        fail("cannot create");
        return work;
      }
    }
    for (std::size_t written = 0; fd_ >= 0 && written < bytes.size();) {
      const ssize_t n = ::write(fd_, bytes.data() + written, bytes.size() - written);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        fail("cannot write");
        return work;
      }
      written += static_cast<std::size_t>(n);
    }
    detector_.feed(bytes);
    fifo_.consume(bytes.size());
    ++work;
  }
  // With a return path the connection stays open behind the last byte: only the VM description tells that it
  // was the last. Without one, the end of the connection tells as well.
  const bool tail_ended = detector_.complete() || (source_ended_ && fifo_.empty());
  if (ram_complete_.load(std::memory_order_acquire) && tail_ended) verdict_ = Verdict::accepted;
  return work;
}

void DeviceStateFile::fail(const char* what) {
  error_ = make_error(ErrorClass::io, detector_.bytes(), "device state", "%s %s: %m", what, path_.c_str());
  verdict_ = Verdict::refused;
}

}  // namespace migrx

#include "loader/destination/device_state_file.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "loader/destination/new_file.h"

namespace migrx {

DeviceStateFile::DeviceStateFile(std::string path, const DeviceStateLimits& limits,
                                 std::vector<SharedFile> files, std::size_t fifo_bytes)
    : path_(std::move(path)), limits_(limits), files_(std::move(files)), fifo_(fifo_bytes) {}

DeviceStateFile::~DeviceStateFile() {
  if (fd_ >= 0) ::close(fd_);
}

uint32_t DeviceStateFile::do_work(uint64_t /*now_ns*/) {
  if (verdict_ != Verdict::pending) return 0;
  uint32_t work = 0;
  for (Bytes bytes = fifo_.readable(); !bytes.empty(); bytes = fifo_.readable()) {
    if (!path_.empty() && fd_ < 0) {
      fd_ = open_new_file(path_);
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
    if (bytes.size() > limits_.bytes_max - detector_.bytes()) {
      refuse(make_error(ErrorClass::bad_stream, detector_.bytes(), "device state",
                        "more than %llu bytes, and no end: the source is damaged or hostile",
                        static_cast<unsigned long long>(limits_.bytes_max)));
      return work;
    }
    detector_.feed(bytes);
    fifo_.consume(bytes.size());
    ++work;
  }
  // With a return path the connection stays open after the last byte: only the VM description tells that it
  // was the last. Without one, the end of the connection tells as well.
  const bool tail_ended = detector_.complete() || (source_ended_ && fifo_.empty());
  if (!ram_complete_.load(std::memory_order_acquire)) return work;
  if (tail_ended) {
    if (const std::string replaced = file_replaced(files_); !replaced.empty())
      refuse(make_error(ErrorClass::io, detector_.bytes(), "guest memory", "%s", replaced.c_str()));
    else
      verdict_ = Verdict::accepted;
  }
  return work;
}

void DeviceStateFile::source_silent(uint64_t ns) {
  if (limits_.stall_ns == 0 || ns < limits_.stall_ns || verdict_ != Verdict::pending) return;
  refuse(make_error(ErrorClass::timed_out, detector_.bytes(), "device state",
                    "no byte came for %.0f s and the device state does not end with a VM description: it "
                    "is damaged, or the source is stuck (--stall-timeout)",
                    static_cast<double>(limits_.stall_ns) * 1e-9));
}

void DeviceStateFile::fail(const char* what) {
  refuse(make_error(ErrorClass::io, detector_.bytes(), "device state", "%s %s: %m", what, path_.c_str()));
}

void DeviceStateFile::refuse(const StreamError& error) {
  error_ = error;
  verdict_ = Verdict::refused;
}

}  // namespace migrx

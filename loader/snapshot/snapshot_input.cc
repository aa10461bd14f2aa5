#include "loader/snapshot/snapshot_input.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace migrx {
namespace {

constexpr int kWaitMs = 50;
constexpr std::size_t kSkipBytes = 64 << 10;

}  // namespace

SnapshotInput::SnapshotInput(std::string path, uint64_t offset)
    : path_(std::move(path)), name_(path_ == "-" ? "standard input" : path_), offset_(offset) {}

SnapshotInput::~SnapshotInput() {
  if (owns_fd_) ::close(fd_);
}

StreamError SnapshotInput::error(ErrorClass error_class, const std::string& text) const {
  StreamError error = make_error(error_class, position_, "file", "%s %s", name_.c_str(), text.c_str());
  error.channel = ChannelName::main();
  return error;
}

StreamError SnapshotInput::failed(int number) const {
  return error(ErrorClass::io, std::string("cannot be read: ") + std::strerror(number));
}

StreamError SnapshotInput::silent(uint64_t stall_ns) const {
  return error(ErrorClass::timed_out,
               "brought no byte for " + std::to_string(stall_ns / 1'000'000'000) +
                   " s: does the program that writes into it still run? (--stall-timeout)");
}

StreamError SnapshotInput::open_descriptor() {
  struct stat status {};
  if (path_ == "-") {
    fd_ = STDIN_FILENO;
  } else {
    // Opening a device can have effects of its own (a tape, a watchdog): first it is looked at.
    if (::stat(path_.c_str(), &status) != 0)
      return error(ErrorClass::io, std::string("cannot be opened: ") + std::strerror(errno));
    const mode_t type = status.st_mode & S_IFMT;
    if (type == S_IFDIR) return error(ErrorClass::io, "is a directory: give the file that holds the stream");
    if (type == S_IFCHR)
      return error(ErrorClass::io, "is a character device: give a file, a block device or a pipe");
    if (type == S_IFSOCK)
      return error(
          ErrorClass::io,
          "is a socket: a source that connects is taken by `migrx receive`, and a program that reads the "
          "socket can write into `migrx load -`");
    // Without O_NONBLOCK, opening a FIFO would wait for its writer, deaf to signals.
    fd_ = ::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd_ < 0) {
      const int number = errno;
      return error(ErrorClass::io,
                   std::string("cannot be opened: ") + std::strerror(number) +
                       (number == EACCES || number == EPERM
                            ? ": run migrx as a user who may read it (libvirt's belong to root)"
                            : ""));
    }
    owns_fd_ = true;
  }
  if (::fstat(fd_, &status) != 0)
    return error(ErrorClass::io, errno == EBADF ? std::string("is closed: give a file or a pipe")
                                                : std::string(std::strerror(errno)));
  const mode_t type = status.st_mode & S_IFMT;
  if (type == S_IFDIR || type == S_IFCHR)
    return error(ErrorClass::io, type == S_IFDIR
                                     ? "is a directory: give the file that holds the stream"
                                     : "is a terminal or another character device: give a file or a pipe");
  seekable_ = type == S_IFREG || type == S_IFBLK;
  if (type == S_IFREG) length_ = static_cast<uint64_t>(status.st_size);
  // Standard input may have been read up to here by another program, as `(read line; migrx load -)
  // < FILE` does.
  if (seekable_ && path_ == "-")
    if (const off_t at = ::lseek(fd_, 0, SEEK_CUR); at > 0) position_ = static_cast<uint64_t>(at);
  return {};
}

StreamError SnapshotInput::open(const Turn& turn, const Clock& now_ns, uint64_t stall_ns) {
  if (StreamError problem = open_descriptor()) return problem;
  if (offset_ > static_cast<uint64_t>(INT64_MAX) - position_ - LibvirtSaveImage::kXmlBytesMax)
    return error(ErrorClass::truncated, "ends before --offset " + std::to_string(offset_));
  if (StreamError problem = skip_to(position_ + offset_, turn, now_ns, stall_ns)) return problem;
  const auto look = [&](SnapshotFormat& format) -> StreamError {
    if (StreamError problem = fill_head(kSnapshotHeadBytes, turn, now_ns, stall_ns)) return problem;
    format = recognise_snapshot(head_, {path_, !seekable_, position_});
    if (seekable_) head_.clear();  // it is read again, where the parser wants it
    return format.error;
  };
  SnapshotFormat format;
  if (StreamError problem = look(format)) return problem;
  if (format.libvirt) {
    libvirt_ = format.libvirt;
    if (StreamError problem = skip_to(position_ + libvirt_->stream_offset(), turn, now_ns, stall_ns))
      return problem;
    if (StreamError problem = look(format)) return problem;
    if (format.libvirt)
      return error(ErrorClass::bad_stream,
                   "is a libvirt save image inside another one: libvirt writes no such file");
  }
  mapped_ram_ = format.mapped_ram;
  return {};
}

StreamError SnapshotInput::wait_for_pipe(const Turn& turn, const Clock& now_ns, uint64_t stall_ns,
                                         uint64_t& silent_since_ns) const {
  const uint64_t now = now_ns();
  if (silent_since_ns == 0) silent_since_ns = now;
  if (turn()) return error(ErrorClass::cancelled, "was not loaded: ended by a signal");
  if (stall_ns > 0 && now - silent_since_ns >= stall_ns) return silent(stall_ns);
  wait();
  return {};
}

StreamError SnapshotInput::fill_head(std::size_t wanted, const Turn& turn, const Clock& now_ns,
                                     uint64_t stall_ns) {
  uint64_t silent_since_ns = 0;
  while (head_.size() < wanted) {
    const std::size_t have = head_.size();
    head_.resize(wanted);
    const std::span<std::byte> into = std::span(head_).subspan(have);
    Result result;
    if (seekable_) {
      const ssize_t n = ::pread(fd_, into.data(), into.size(), static_cast<off_t>(position_ + have));
      result = n > 0    ? Result{Status::bytes, static_cast<std::size_t>(n), 0}
               : n == 0 ? Result{Status::end, 0, 0}
                        : Result{errno == EINTR ? Status::nothing_yet : Status::failed, 0, errno};
    } else {
      result = read_descriptor(into);
    }
    head_.resize(have + result.bytes);
    switch (result.status) {
      case Status::bytes:
        silent_since_ns = 0;
        break;
      case Status::end:
        return {};
      case Status::failed:
        return failed(result.error);
      case Status::nothing_yet:
        if (StreamError problem = wait_for_pipe(turn, now_ns, stall_ns, silent_since_ns)) return problem;
        break;
    }
  }
  return {};
}

StreamError SnapshotInput::skip_to(uint64_t position, const Turn& turn, const Clock& now_ns,
                                   uint64_t stall_ns) {
  if (seekable_) {
    if (length_ > 0 && position > length_)
      return error(ErrorClass::truncated,
                   "ends before byte " + std::to_string(position) +
                       ", where the stream should begin: is it whole, and --offset right?");
    position_ = position;
    return {};
  }
  std::vector<std::byte> waste(kSkipBytes);
  uint64_t silent_since_ns = 0;
  while (position_ < position) {
    const Result result = read(std::span(waste).first(
        static_cast<std::size_t>(std::min<uint64_t>(kSkipBytes, position - position_))));
    if (result.status == Status::failed) return failed(result.error);
    if (result.status == Status::end)
      return error(ErrorClass::truncated,
                   "ends before byte " + std::to_string(position) +
                       ", where the stream should begin: is it whole, and --offset right?");
    if (result.status == Status::bytes) silent_since_ns = 0;
    if (result.status == Status::nothing_yet)
      if (StreamError problem = wait_for_pipe(turn, now_ns, stall_ns, silent_since_ns)) return problem;
  }
  return {};
}

SnapshotInput::Result SnapshotInput::read_descriptor(std::span<std::byte> into) const {
  pollfd descriptor{fd_, POLLIN, 0};
  if (::poll(&descriptor, 1, 0) <= 0) return {Status::nothing_yet, 0, 0};
  const ssize_t n = ::read(fd_, into.data(), into.size());
  if (n > 0) return {Status::bytes, static_cast<std::size_t>(n), 0};
  if (n == 0) return {Status::end, 0, 0};
  if (errno == EINTR || errno == EAGAIN) return {Status::nothing_yet, 0, 0};
  return {Status::failed, 0, errno};
}

SnapshotInput::Result SnapshotInput::read(std::span<std::byte> into) {
  Result result;
  if (seekable_) {
    const ssize_t n = ::pread(fd_, into.data(), into.size(), static_cast<off_t>(position_));
    if (n < 0) return {errno == EINTR ? Status::nothing_yet : Status::failed, 0, errno};
    result = {n == 0 ? Status::end : Status::bytes, static_cast<std::size_t>(n), 0};
  } else if (!head_.empty()) {
    const std::size_t n = std::min(head_.size(), into.size());
    std::copy_n(head_.begin(), n, into.begin());
    head_.erase(head_.begin(), head_.begin() + static_cast<std::ptrdiff_t>(n));
    result = {Status::bytes, n, 0};
  } else {
    result = read_descriptor(into);
  }
  position_ += result.bytes;
  return result;
}

void SnapshotInput::wait() const {
  if (seekable_ || !head_.empty()) return;
  pollfd descriptor{fd_, POLLIN, 0};
  (void)::poll(&descriptor, 1, kWaitMs);
}

std::string SnapshotInput::description() const {
  const std::string stream = mapped_ram_ ? "mapped-ram snapshot" : "plain stream";
  return libvirt_ ? stream + " in a " + describe(*libvirt_) : stream;
}

}  // namespace migrx

#include "loader/control/control_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "loader/control/control_message.h"

namespace migrx {
namespace {

constexpr std::size_t kKernelsMax = 253;  // descriptors of one message (SCM_MAX_FD)

struct Piece {
  ssize_t bytes = 0;  // as recvmsg() returned it
  std::vector<Descriptor> files;
  bool cut = false;  // some descriptors could not be given to this process
};

Piece receive(int fd, char* to, std::size_t bytes) {
  Piece piece;
  iovec part{to, bytes};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kKernelsMax)> control;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  do piece.bytes = ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (piece.bytes < 0 && errno == EINTR);
  if (piece.bytes < 0) return piece;
  piece.cut = (message.msg_flags & MSG_CTRUNC) != 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int file = -1;
      std::memcpy(&file, CMSG_DATA(header) + i * sizeof file, sizeof file);
      piece.files.emplace_back(file);
    }
  }
  return piece;
}

}  // namespace

ControlConnection::ControlConnection(Descriptor socket, ControlPeer peer, ForeignFiles& files)
    : socket_(std::move(socket)), peer_(std::move(peer)), files_(files) {}

// What was sent and not read goes when the socket does, descriptors as well, and they would be closed there
// and then: read instead, so that none of them can hold this thread up. Nothing can be added by then.
ControlConnection::~ControlConnection() {
  (void)::shutdown(socket_.get(), SHUT_RDWR);
  std::array<char, 4096> bytes;
  for (;;) {
    Piece piece = receive(socket_.get(), bytes.data(), bytes.size());
    files_.dispose(std::move(piece.files));
    if (piece.bytes <= 0) break;
  }
}

std::size_t ControlConnection::read() {
  std::array<char, kReadMax> bytes;
  Piece piece = receive(socket_.get(), bytes.data(), bytes.size());
  if (piece.bytes < 0) {
    over_ = over_ || (errno != EAGAIN && errno != EWOULDBLOCK);
    return 0;
  }
  if (piece.bytes == 0) {
    ended_ = true;  // it may still read
    return 0;
  }
  const auto taken = static_cast<std::size_t>(piece.bytes);
  if (piece.cut) {
    files_.dispose(std::move(piece.files));
    end("too many descriptors are open here: some of those that came are lost");
    return taken;
  }
  const bool foreign = std::any_of(piece.files.begin(), piece.files.end(),
                                   [](const Descriptor& file) { return !is_memory_file(file.get()); });
  if (foreign) {
    files_.dispose(std::move(piece.files));
    end("a descriptor is no regular file of hugetlbfs or tmpfs, where guest RAM lies: send those alone");
    return taken;
  }
  if (const std::string problem = parser_.feed({bytes.data(), taken}, std::move(piece.files));
      !problem.empty())
    end(problem);
  return taken;
}

void ControlConnection::end(const std::string& why) {
  ended_ = true;
  last_words_ = error_line({control_class::kMalformed, why + "; this conversation is over"}, std::nullopt);
  if (!parser_.ready()) send(std::exchange(last_words_, {}));
}

std::optional<ControlLine> ControlConnection::next() {
  if (!ready()) return std::nullopt;
  std::optional<ControlLine> line = parser_.next();
  if (!line && !last_words_.empty()) send(std::exchange(last_words_, {}));  // there were blank lines only
  return line;
}

void ControlConnection::send(const std::string& line) {
  if (over_) return;
  if (unsent() > kUnsentMax) {
    over_ = true;  // it does not read, and must not be kept for
    return;
  }
  out_ += line;
  if (!last_words_.empty() && !parser_.ready()) out_ += std::exchange(last_words_, {});
  flush();
}

void ControlConnection::flush() {
  while (unsent() > 0 && !over_) {
    const ssize_t n = ::send(socket_.get(), out_.data() + sent_, unsent(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      sent_ += static_cast<std::size_t>(n);
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    over_ = true;
  }
  // What was sent is kept until it is worth moving the rest.
  if (sent_ == out_.size() || sent_ > kUnsentMax) {
    out_.erase(0, sent_);
    sent_ = 0;
  }
}

}  // namespace migrx

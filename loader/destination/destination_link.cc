#include "loader/destination/destination_link.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace migrx {
namespace {

constexpr std::size_t kReceiveBytes = std::size_t{16} * 1024;

bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

void DestinationLink::begin(Descriptor socket, std::unique_ptr<SecuredLink> tls, uint64_t now_ns) {
  *this = {};
  socket_ = std::move(socket);
  // A small record must not wait for the acknowledgement of the flight before it; UNIX sockets refuse this.
  const int on = 1;
  (void)::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  tls_ = std::move(tls);
  since_ns_ = now_ns;
  open_ = tls_ == nullptr;
  if (tls_ != nullptr) tls_->go_on({});
}

void DestinationLink::close() {
  socket_.reset();
  tls_.reset();
  open_ = false;
}

bool DestinationLink::reads() const noexcept {
  return socket_ && end_ == End::none &&
         (tls_ == nullptr || open_ || tls_->phase() == SecuredLink::Phase::wants_bytes);
}

uint32_t DestinationLink::do_work(uint64_t now_ns) {
  if (!socket_ || end_ != End::none) return 0;
  if (!open_) return shake_hands(now_ns);
  const std::size_t before = output_.size() - output_sent_;
  (void)flush();
  return output_.size() - output_sent_ < before ? 1 : 0;
}

uint32_t DestinationLink::shake_hands(uint64_t now_ns) {
  if (now_ns - since_ns_ > kHandshakeNs) {
    end_ = End::tls_late;
    return 1;
  }
  const SecuredLink::Phase phase = tls_->phase();
  if (phase == SecuredLink::Phase::working) return 0;
  if (phase == SecuredLink::Phase::failed) {
    fail_tls(tls_->problem());
    return 1;
  }
  const std::vector<std::byte> flight = tls_->take_output();
  output_.insert(output_.end(), flight.begin(), flight.end());
  const bool sent = flush();
  if (end_ != End::none) return 1;
  if (phase == SecuredLink::Phase::open) {
    open_ = true;
    if (!tls_->open({}, text_)) fail_tls(tls_->problem());  // what came behind the handshake
    return 1;
  }
  if (!sent) return 0;
  std::array<std::byte, kReceiveBytes> inbox;
  const ssize_t n = ::recv(socket_.get(), inbox.data(), inbox.size(), 0);
  if (n <= 0) {
    if (n < 0 && would_block(errno)) return flight.empty() ? 0 : 1;
    close_with(n < 0 ? errno : 0);
    return 1;
  }
  handshake_bytes_ += static_cast<std::size_t>(n);
  if (handshake_bytes_ > kHandshakeBytesMax)
    fail_tls("the handshake is longer than any server's");
  else
    tls_->go_on({inbox.data(), static_cast<std::size_t>(n)});
  return 1;
}

bool DestinationLink::flush() {
  while (sending()) {
    const ssize_t n =
        ::send(socket_.get(), output_.data() + output_sent_, output_.size() - output_sent_, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      if (!would_block(errno)) close_with(errno);
      return false;
    }
    output_sent_ += static_cast<std::size_t>(n);
  }
  output_.clear();
  output_sent_ = 0;
  return true;
}

std::size_t DestinationLink::send(Bytes text) {
  if (!open() || end_ != End::none) return 0;
  if (tls_ == nullptr) {
    for (;;) {
      const ssize_t n = ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n >= 0) return static_cast<std::size_t>(n);
      if (errno == EINTR) continue;
      if (!would_block(errno)) close_with(errno);
      return 0;
    }
  }
  if (!flush()) return 0;
  text = text.first(std::min(text.size(), kTextBytesMax));
  if (!tls_->seal(text)) {
    fail_tls(tls_->problem());
    return 0;
  }
  output_ = tls_->take_output();
  (void)flush();
  return end_ == End::none ? text.size() : 0;
}

std::size_t DestinationLink::receive(std::span<std::byte> to) {
  if (!open()) return 0;
  if (tls_ == nullptr) {
    const ssize_t n = ::recv(socket_.get(), to.data(), to.size(), 0);
    if (n > 0) return static_cast<std::size_t>(n);
    if (n == 0 || !would_block(errno)) close_with(n == 0 ? 0 : errno);
    return 0;
  }
  if (text_read_ == text_.size()) {
    text_.clear();
    text_read_ = 0;
    std::array<std::byte, kReceiveBytes> inbox;
    const ssize_t n = ::recv(socket_.get(), inbox.data(), inbox.size(), 0);
    if (n <= 0) {
      if (n == 0 || !would_block(errno)) close_with(n == 0 ? 0 : errno);
      return 0;
    }
    if (!tls_->open({inbox.data(), static_cast<std::size_t>(n)}, text_)) fail_tls(tls_->problem());
  }
  const std::size_t n = std::min(to.size(), text_.size() - text_read_);
  if (n > 0) std::memcpy(to.data(), text_.data() + text_read_, n);
  text_read_ += n;
  return n;
}

void DestinationLink::close_with(int error) {
  end_ = End::closed;
  error_ = error;
}

// Empty: the peer's close_notify.
void DestinationLink::fail_tls(std::string problem) {
  if (problem.empty()) return close_with(0);
  end_ = End::tls_failed;
  tls_problem_ = std::move(problem);
}

}  // namespace migrx

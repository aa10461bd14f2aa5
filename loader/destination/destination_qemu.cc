#include "loader/destination/destination_qemu.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace migrx {

bool parse_unix_address(const std::string& text, std::string& path) {
  constexpr std::string_view kPrefix = "unix:";
  if (!text.starts_with(kPrefix)) return false;
  path = text.substr(kPrefix.size());
  return !path.empty() && path.size() < sizeof(sockaddr_un::sun_path);
}

DestinationQemu::DestinationQemu(std::string path, const RamBlockList& blocks,
                                 std::map<std::string, uint64_t> addresses, std::vector<SharedFile> files)
    : path_(std::move(path)), files_(std::move(files)), rewriter_(blocks, std::move(addresses), fifo_) {}

DestinationQemu::~DestinationQemu() {
  disconnect();
}

void DestinationQemu::abandon() {
  abandoned_ = true;
  disconnect();
}

void DestinationQemu::disconnect() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  connected_ = false;
}

uint32_t DestinationQemu::do_work(uint64_t now_ns) {
  if (verdict_ != Verdict::pending || abandoned_) return 0;
  if (!connected_) {
    if (fifo_.empty() || !connect(now_ns)) return 0;
  }
  const uint32_t sent = send_some(now_ns);
  return verdict_ == Verdict::pending ? sent + receive_some() : sent;
}

bool DestinationQemu::connect(uint64_t now_ns) {
  if (connect_since_ns_ == 0) connect_since_ns_ = now_ns;
  if (fd_ < 0) fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  if (fd_ >= 0 && ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    PeerMemory memory = check_peer_memory(fd_, files_);
    warning_ = std::move(memory.warning);
    if (!memory.problem.empty()) {
      error_ = make_error(ErrorClass::mismatch, 0, "destination QEMU", "%s", memory.problem.c_str());
      error_.channel.index = ChannelName::kMain;
      verdict_ = Verdict::refused;
      abandon();
      return false;
    }
    return connected_ = true;
  }
  const int error = errno;
  const bool may_come = error == ENOENT || error == ECONNREFUSED || error == EAGAIN;
  if (!may_come || now_ns - connect_since_ns_ > kConnectNs)
    refuse("cannot be reached: start it with -incoming defer, then migrate-incoming with this address",
           error);
  return false;
}

uint32_t DestinationQemu::send_some(uint64_t now_ns) {
  uint32_t work = 0;
  std::size_t sent = 0;
  for (Bytes bytes = fifo_.readable(); !bytes.empty() && sent < kSendBytesMax; bytes = fifo_.readable()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (n < 0) {
      // It may have said why before it went.
      const int error = errno;
      (void)receive_some();
      if (verdict_ == Verdict::pending) refuse("closed the connection", error);
      break;
    }
    fifo_.consume(static_cast<std::size_t>(n));
    sent += static_cast<std::size_t>(n);
    sent_ += static_cast<uint64_t>(n);
    last_sent_ns_ = now_ns;
    ++work;
  }
  return work;
}

uint32_t DestinationQemu::receive_some() {
  std::array<std::byte, 512> buffer;
  const ssize_t n = ::recv(fd_, buffer.data(), buffer.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return 0;
  if (n < 0) {
    refuse("closed the connection", errno);
    return 0;
  }
  if (n == 0) {
    refuse("closed the connection before it had loaded the device state", 0);
    return 0;
  }
  reader_.feed({buffer.data(), static_cast<std::size_t>(n)});
  ReturnPathMessage message;
  while (verdict_ == Verdict::pending && reader_.next(message)) {
    if (message.type == ReturnPathType::switchover_ack) switchover_acked_ = true;
    if (message.type != ReturnPathType::shut) continue;  // PONG to our own PING
    if (message.value != 0)
      refuse("could not load the device state (SHUT 1)", 0);
    else if (!rewriter_.device_state_begun())
      // Passed on, it would let the source believe that its guest is safe.
      refuse("says that it has loaded the guest (SHUT 0) before it was given device state: no QEMU does", 0);
    else
      verdict_ = Verdict::accepted;
  }
  if (verdict_ == Verdict::pending && reader_.error()) {
    error_ = reader_.error();
    error_.channel.index = ChannelName::kMain;
    verdict_ = Verdict::refused;
    abandon();
  }
  return 1;
}

void DestinationQemu::refuse(const char* what, int error) {
  error_ = make_error(ErrorClass::io, sent_, "destination QEMU", "%s %s%s%s; its own log says why",
                      path_.c_str(), what, error != 0 ? ": " : "", error != 0 ? std::strerror(error) : "");
  error_.channel.index = ChannelName::kMain;
  verdict_ = Verdict::refused;
  abandon();
}

}  // namespace migrx

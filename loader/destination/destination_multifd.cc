#include "loader/destination/destination_multifd.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dataplane/handoff/byte_order.h"
#include "loader/destination/network_namespace.h"

namespace migrx {
namespace {

// SYNCs under way at most: one that the destination does not ask for stays in its socket.
constexpr uint64_t kSendsPerTurnMax = 64;

}  // namespace

std::vector<std::byte> make_multifd_sync() {
  std::vector<std::byte> packet(kMultifdHeaderBytes);
  store_be32(&packet[0], kMultifdMagic);
  store_be32(&packet[4], kMultifdVersion);
  store_be32(&packet[8], multifd_flag::kSync);
  store_be32(&packet[12], kMultifdPagesMax);  // pages_alloc; no pages, no name, no payload
  return packet;
}

DestinationMultifd::~DestinationMultifd() {
  close();
}

void DestinationMultifd::close() {
  for (Channel& channel : channels_) {
    if (channel.fd >= 0) ::close(channel.fd);
    channel.fd = -1;
    channel.connected = false;
  }
}

void DestinationMultifd::begin(const SocketAddress& address, std::span<const MultifdInitPacket> inits) {
  address_ = address;
  for (const MultifdInitPacket& init : inits) channels_.push_back({init});
}

bool DestinationMultifd::ready() const noexcept {
  return std::all_of(channels_.begin(), channels_.end(),
                     [](const Channel& channel) { return channel.sent >= kMultifdInitBytes; });
}

uint32_t DestinationMultifd::do_work(uint64_t syncs) {
  uint32_t work = 0;
  for (Channel& channel : channels_) {
    if (!problem_.empty()) break;
    if (!channel.connected && !connect(channel)) continue;
    work += send_some(channel, syncs);
  }
  return work;
}

bool DestinationMultifd::connect(Channel& channel) {
  if (channel.fd < 0) {
    channel.fd = socket_in(namespace_fd_, address_.family(), SOCK_STREAM, 0).release();
    if (channel.fd < 0) {
      fail("no socket", errno);
      return false;
    }
  }
  if (::connect(channel.fd, address_.get(), address_.length) == 0 || errno == EISCONN)
    return channel.connected = true;
  // Its backlog is as long as it has channels, so a full one empties itself.
  if (errno != EINPROGRESS && errno != EALREADY && errno != EAGAIN && errno != EINTR)
    fail("cannot be connected a further time", errno);
  return false;
}

uint32_t DestinationMultifd::send_some(Channel& channel, uint64_t syncs) {
  const uint64_t due = kMultifdInitBytes + syncs * sync_.size();
  uint32_t work = 0;
  while (channel.sent < due && work < kSendsPerTurnMax) {
    Bytes piece = channel.sent < kMultifdInitBytes
                      ? Bytes{channel.init}.subspan(channel.sent)
                      : Bytes{sync_}.subspan((channel.sent - kMultifdInitBytes) % sync_.size());
    const ssize_t n = ::send(channel.fd, piece.data(), piece.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (n < 0) {
      fail("closed a multifd connection", errno);
      break;
    }
    channel.sent += static_cast<uint64_t>(n);
    ++work;
  }
  return work;
}

void DestinationMultifd::fail(const char* what, int error) {
  problem_ = std::string(what) + ": " + std::strerror(error);
}

}  // namespace migrx

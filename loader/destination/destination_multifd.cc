#include "loader/destination/destination_multifd.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

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

DestinationMultifd::~DestinationMultifd() = default;

void DestinationMultifd::close() {
  for (Channel& channel : channels_) {
    channel.socket.reset();
    channel.link.close();
    channel.connected = false;
  }
}

void DestinationMultifd::forget() {
  channels_.clear();
  problem_.clear();
}

void DestinationMultifd::begin(const SocketAddress& address, std::span<const MultifdInitPacket> inits,
                               LinkSecurity* security) {
  address_ = address;
  security_ = security;
  channels_.resize(inits.size());
  for (std::size_t i = 0; i < inits.size(); ++i) channels_[i].init = inits[i];
}

bool DestinationMultifd::ready() const noexcept {
  return std::all_of(channels_.begin(), channels_.end(), [](const Channel& channel) {
    return channel.sent >= kMultifdInitBytes && !channel.link.sending();
  });
}

uint32_t DestinationMultifd::do_work(uint64_t syncs, uint64_t now_ns) {
  uint32_t work = 0;
  for (Channel& channel : channels_) {
    if (!problem_.empty()) break;
    if (!channel.connected && !connect(channel, now_ns)) continue;
    work += channel.link.do_work(now_ns);
    work += send_some(channel, syncs);
    look_at_end(channel);
  }
  return work;
}

bool DestinationMultifd::connect(Channel& channel, uint64_t now_ns) {
  if (!channel.socket) {
    channel.socket = socket_in(namespace_fd_, address_.family(), SOCK_STREAM, 0);
    if (!channel.socket) {
      fail("no socket", errno);
      return false;
    }
  }
  if (::connect(channel.socket.get(), address_.get(), address_.length) == 0 || errno == EISCONN) {
    channel.link.begin(std::move(channel.socket), security_ != nullptr ? security_->connect() : nullptr,
                       now_ns);
    return channel.connected = true;
  }
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
    const std::size_t n = channel.link.send(piece);
    if (n == 0) break;
    channel.sent += n;
    ++work;
  }
  return work;
}

void DestinationMultifd::look_at_end(const Channel& channel) {
  const DestinationLink& link = channel.link;
  switch (link.end()) {
    case DestinationLink::End::none:
      break;
    case DestinationLink::End::closed:
      fail(link.open() ? "closed a multifd connection"
                       : "closed a multifd connection within its TLS handshake",
           link.error());
      break;
    case DestinationLink::End::tls_failed:
      problem_ = "TLS of a multifd connection: " + link.tls_problem();
      break;
    case DestinationLink::End::tls_late:
      problem_ = "does not finish the TLS handshake of a multifd connection";
      break;
  }
}

void DestinationMultifd::fail(const char* what, int error) {
  problem_ = what;
  if (error != 0) problem_ += std::string(": ") + std::strerror(error);
}

}  // namespace migrx

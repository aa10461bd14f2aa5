#include "loader/destination/destination_multifd.h"

#include <algorithm>
#include <utility>

#include "dataplane/handoff/byte_order.h"

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
  for (Channel& channel : channels_) channel.further.close();
}

void DestinationMultifd::forget() {
  channels_.clear();
  problem_.clear();
}

void DestinationMultifd::begin(FurtherAddress to, std::span<const MultifdInitPacket> inits) {
  to_ = std::move(to);
  channels_.resize(inits.size());
  for (std::size_t i = 0; i < inits.size(); ++i) channels_[i].init = inits[i];
}

bool DestinationMultifd::ready() const noexcept {
  return std::all_of(channels_.begin(), channels_.end(), [](const Channel& channel) {
    return channel.sent >= kMultifdInitBytes && !channel.further.link().sending();
  });
}

uint32_t DestinationMultifd::do_work(uint64_t syncs, uint64_t now_ns) {
  uint32_t work = 0;
  for (Channel& channel : channels_) {
    if (!problem_.empty()) break;
    if (!channel.further.connect(to_, now_ns, problem_)) continue;
    work += channel.further.link().do_work(now_ns);
    work += send_some(channel, syncs);
    problem_ = channel.further.end_text("a multifd connection");
  }
  return work;
}

uint32_t DestinationMultifd::send_some(Channel& channel, uint64_t syncs) {
  const uint64_t due = kMultifdInitBytes + syncs * sync_.size();
  uint32_t work = 0;
  while (channel.sent < due && work < kSendsPerTurnMax) {
    Bytes piece = channel.sent < kMultifdInitBytes
                      ? Bytes{channel.init}.subspan(channel.sent)
                      : Bytes{sync_}.subspan((channel.sent - kMultifdInitBytes) % sync_.size());
    const std::size_t n = channel.further.link().send(piece);
    if (n == 0) break;
    channel.sent += n;
    ++work;
  }
  return work;
}

}  // namespace migrx

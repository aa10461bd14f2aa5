#include "tests/sim/link.h"

#include <algorithm>
#include <utility>

namespace migrx::sim {

void Link::send(Packet packet, uint64_t now_ns) {
  ++sent;
  if (away_) {
    ++lost;
    return;
  }
  if (options_.clog > 0 && random_.chance(options_.clog))
    free_ns_ = std::max(free_ns_, now_ns) + options_.clog_ns;
  const uint64_t start_ns = std::max(free_ns_, now_ns);
  if (start_ns - now_ns > options_.queue_ns_max + options_.clog_ns || random_.chance(options_.loss) ||
      (options_.mtu > 0 && packet.size() > options_.mtu + 18)) {
    ++lost;
    return;
  }
  free_ns_ = start_ns + packet.size() * 8 * 1000 / options_.bits_per_us;
  uint64_t at_ns = free_ns_ + options_.delay_ns;
  if (options_.jitter_ns > 0) at_ns += random_.below(options_.jitter_ns);
  bool damaged = false;
  if (random_.chance(options_.duplicate)) {
    ++duplicated;
    queue_.push({at_ns + random_.below(options_.reorder_ns + 1), number_++, packet, false});
  }
  if (random_.chance(options_.corrupt)) {
    ++corrupted;
    damaged = true;
    damage(packet);
  } else if (random_.chance(options_.truncate)) {
    ++corrupted;
    damaged = true;
    packet.resize(random_.between(1, packet.size()));
  }
  if (random_.chance(options_.reorder)) {
    ++reordered;
    at_ns += random_.below(options_.reorder_ns + 1);
  } else {
    at_ns = in_order_ns_ = std::max(at_ns, in_order_ns_);
  }
  queue_.push({at_ns, number_++, std::move(packet), damaged});
}

bool Link::receive(uint64_t now_ns, Packet& out, bool& damaged) {
  if (queue_.empty() || queue_.top().at_ns > now_ns) return false;
  // The element is removed at once, so taking its bytes cannot break the order of the heap.
  auto& top = const_cast<Flight&>(queue_.top());
  out = std::move(top.packet);
  damaged = top.damaged;
  queue_.pop();
  return true;
}

// Bits of one aligned 16-bit word are turned over: the Internet checksum finds every such damage (RFC 1071),
// whereas it misses one in 65,536 of arbitrary ones and the comparison of RAM would then blame the receiver.
// The Ethernet header is spared: its own check sequence makes damage there a loss.
void Link::damage(Packet& packet) {
  constexpr std::size_t kEthernet = 14;
  if (packet.size() < kEthernet + 2) return;
  const std::size_t words = (packet.size() - kEthernet) / 2;
  const std::size_t at = kEthernet + 2 * random_.below(words);
  auto flip = static_cast<uint16_t>(random_.between(1, 0xfffe));
  if (random_.chance(0.5)) flip = static_cast<uint16_t>(1U << random_.below(16));
  packet[at] ^= static_cast<std::byte>(flip >> 8);
  packet[at + 1] ^= static_cast<std::byte>(flip & 0xff);
}

}  // namespace migrx::sim

// The source at work: connections, socket buffers, return path.
#include "tests/sim/source.h"

#include <algorithm>
#include <utility>

namespace migrx::sim {

void Source::attach(std::vector<TcpSender*> connections, Random& random, uint64_t now_ns) {
  connections_ = std::move(connections);
  pending_.resize(connections_.size());
  pending_at_.resize(connections_.size());
  written_.resize(connections_.size());
  ends_.resize(connections_.size());
  greeted_.resize(connections_.size());
  connect_at_ns_.resize(connections_.size(), UINT64_MAX);
  connect_at_ns_[0] = now_ns;
  for (uint32_t i = 0; i < options_.channels; ++i) {
    channels_.push_back(
        std::make_unique<test::MultifdStreamBuilder>(options_.method, 1, options_.age <= Age::v8_2));
    connect_at_ns_[i + 1] = now_ns + random.below(400'000);
  }
}

uint64_t Source::next_ns() const {
  uint64_t at = UINT64_MAX;
  for (std::size_t i = 0; i < connections_.size(); ++i)
    if (connections_[i]->state() == TcpSender::State::closed) at = std::min(at, connect_at_ns_[i]);
  return at;
}

uint32_t Source::step(uint64_t now_ns) {
  if (outcome_ != Outcome::running) return 0;
  uint32_t work = 0;
  std::size_t established = 0;
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    TcpSender& connection = *connections_[i];
    // Multifd channels connect when main has, in any order.
    if (connection.state() == TcpSender::State::closed && now_ns >= connect_at_ns_[i] &&
        (i == 0 || connections_[0]->state() == TcpSender::State::established)) {
      connection.connect(now_ns);
      ++work;
    }
    if (connection.state() == TcpSender::State::reset) {
      fail();
      return 1;
    }
    if (connection.state() == TcpSender::State::established) {
      ++established;
      if (i > 0 && !greeted_[i]) {
        greeted_[i] = true;
        channels_[i - 1]->init(static_cast<uint8_t>(i - 1));
        pending_[i] = std::exchange(channels_[i - 1]->bytes, {});
        ++work;
      }
    }
    if (i > 0 && !connection.received.empty() && violation_.empty())
      violation_ = "the receiver sent bytes on a multifd connection";
  }
  read_return_path();
  if (outcome_ != Outcome::running) return 1;
  if (connections_[0]->peer_closed() && outcome_ == Outcome::running) {
    fail();  // "Sibling" went without a verdict
    return 1;
  }
  const bool all = established == connections_.size();
  const bool may_begin =
      options_.age >= Age::v9_0 ? all : connections_[0]->state() == TcpSender::State::established;
  bool moved = pump();
  while (may_begin && !ops_.empty() && (ops_.front().kind == Op::Kind::main || all) && run_op()) moved = true;
  moved = pump() || moved;
  if (all_written() && !options_.return_path) {
    for (TcpSender* const connection : connections_) connection->close();
    outcome_ = Outcome::completed;
  }
  return work + (moved ? 1 : 0);
}

// The front of the plan; false: it must wait.
bool Source::run_op() {
  Op& op = ops_.front();
  const auto idle = [this](std::size_t i) { return pending_at_[i] >= pending_[i].size(); };
  const auto page = [&op](uint64_t offset) {
    const auto at = std::find(op.normal.begin(), op.normal.end(), offset) - op.normal.begin();
    return op.bytes.data() + static_cast<std::size_t>(at) * 4096;
  };
  switch (op.kind) {
    case Op::Kind::main:
      if (!idle(0)) return false;
      pending_[0] = std::move(op.bytes);
      pending_at_[0] = 0;
      ops_.pop_front();
      return true;
    case Op::Kind::packet:
      for (std::size_t n = 0; n < channels_.size(); ++n) {
        const std::size_t i = next_channel_++ % channels_.size();
        if (!idle(i + 1)) continue;
        channels_[i]->pages(packet_num_++, op.idstr, op.normal, page, op.zero);
        pending_[i + 1] = std::exchange(channels_[i]->bytes, {});
        pending_at_[i + 1] = 0;
        ops_.pop_front();
        return true;
      }
      return false;
    case Op::Kind::sync:
      for (std::size_t i = 0; i < channels_.size(); ++i)
        if (!idle(i + 1)) return false;
      if (sync_under_way_) {  // every SYNC is in its socket buffer
        sync_under_way_ = false;
        ops_.pop_front();
        return true;
      }
      sync_under_way_ = true;
      for (std::size_t i = 0; i < channels_.size(); ++i) {
        const bool merged = !op.idstr.empty() && i == next_channel_ % channels_.size();
        if (merged) {
          channels_[i]->pages(packet_num_, op.idstr, op.normal, page, op.zero, /*with_sync=*/true);
          channels_[i]->empty_trailer(packet_num_++);
        } else {
          channels_[i]->sync(packet_num_++);
        }
        pending_[i + 1] = std::exchange(channels_[i]->bytes, {});
        pending_at_[i + 1] = 0;
      }
      ++next_channel_;
      return true;
  }
  return false;
}

bool Source::pump() {
  bool moved = false;
  for (std::size_t i = 0; i < connections_.size(); ++i) moved = push(i) || moved;
  return moved;
}

bool Source::push(std::size_t i) {
  TcpSender& connection = *connections_[i];
  if (connection.state() != TcpSender::State::established || pending_at_[i] >= pending_[i].size())
    return false;
  std::size_t n = pending_[i].size() - pending_at_[i];
  const bool tears = tear_ != Tear::none && !torn_ && torn_connection_ == i;
  if (tears) n = std::min<std::size_t>(n, torn_after_ - std::min(torn_after_, written_[i]));
  if (i == damaged_connection_) {
    for (std::size_t at = 0; at < n && connection.room() > 0; ++at) {
      if (written_[i] + at < damaged_from_ || !damage_random_.chance(damage_chance_)) continue;
      pending_[i][pending_at_[i] + at] ^= static_cast<std::byte>(damage_random_.between(1, 255));
      damaged_ = true;
    }
  }
  const std::size_t taken = connection.write(Bytes{pending_[i]}.subspan(pending_at_[i], n));
  pending_at_[i] += taken;
  written_[i] += taken;
  if (pending_at_[i] == pending_[i].size()) ends_[i].push_back(written_[i]);
  if (tears && written_[i] >= torn_after_) {
    torn_ = true;
    if (tear_ == Tear::fin) connection.close();
    if (tear_ == Tear::reset) connection.abort();
    if (tear_ == Tear::silent) connection.vanish();
  }
  return taken > 0;
}

bool Source::all_written() const {
  if (!ops_.empty()) return false;
  for (std::size_t i = 0; i < connections_.size(); ++i)
    if (pending_at_[i] < pending_[i].size() || written_[i] == 0) return false;
  return true;
}

// Messages: be16 type, be16 length, payload.
void Source::read_return_path() {
  const std::vector<std::byte>& in = connections_[0]->received;
  if (!in.empty() && !options_.return_path && violation_.empty())
    violation_ = "the receiver sent bytes on main although no return path was opened";
  while (in.size() >= return_path_at_ + 4) {
    const uint16_t type = load_be16(in.data() + return_path_at_);
    const uint16_t length = load_be16(in.data() + return_path_at_ + 2);
    if (length != 4 || (type != 1 && type != 2)) {
      if (violation_.empty()) violation_ = "a return-path message of type " + std::to_string(type);
      return;
    }
    if (in.size() < return_path_at_ + 8) return;
    const uint32_t value = load_be32(in.data() + return_path_at_ + 4);
    return_path_at_ += 8;
    if (type == 2) {
      ++pongs_;
      continue;
    }
    if (value != 0) {
      fail();
      return;
    }
    if (!all_written() && violation_.empty()) violation_ = "SHUT 0 before everything was sent";
    outcome_ = Outcome::completed;
    for (TcpSender* const connection : connections_) connection->close();
    return;
  }
}

void Source::fail() {
  outcome_ = Outcome::failed;
  die(true);
}

void Source::die(bool orderly) {
  if (outcome_ == Outcome::running) outcome_ = Outcome::failed;
  for (TcpSender* const connection : connections_) {
    if (connection->state() == TcpSender::State::closed || connection->is_over()) continue;
    if (orderly && connection->state() != TcpSender::State::syn_sent)
      connection->hang_up();
    else
      connection->abort();
  }
}

void Source::vanish() {
  outcome_ = Outcome::failed;
  for (TcpSender* const connection : connections_) connection->vanish();
}

void Source::tear(std::size_t i, uint64_t after_bytes, Tear how) {
  torn_connection_ = i;
  torn_after_ = after_bytes;
  tear_ = how;
}

void Source::damage(std::size_t i, uint64_t from_byte, double chance, Random random) {
  damaged_connection_ = i;
  damaged_from_ = from_byte;
  damage_chance_ = chance;
  damage_random_ = random;
}

}  // namespace migrx::sim

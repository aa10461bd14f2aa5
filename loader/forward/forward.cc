#include "loader/forward/forward.h"

#include <algorithm>
#include <span>
#include <utility>

namespace migrx {

Forward::Forward(Handoff& connection, std::unique_ptr<ServerLink> server, const ForwardLimits& limits,
                 uint64_t now_ns) noexcept
    : connection_(connection), server_(std::move(server)), limits_(limits), moved_ns_(now_ns) {}

uint32_t Forward::do_work(uint64_t now_ns) noexcept {
  if (phase_ == Phase::opening) {
    switch (server_->way()) {
      case ServerLink::Way::opening:
        if (now_ns - moved_ns_ >= limits_.connect_ns) fail(End::unreachable);
        break;
      case ServerLink::Way::open:
        phase_ = Phase::flowing;
        moved_ns_ = now_ns;
        break;
      case ServerLink::Way::failed:
        fail(End::unreachable);
        break;
    }
  }
  uint32_t work = 0;
  if (phase_ == Phase::opening || phase_ == Phase::flowing) {
    const StreamEnd gone = connection_.published_end();
    if (gone != StreamEnd::none && gone != StreamEnd::fin) fail(End::peer_gone);
  }
  if (phase_ == Phase::flowing) work += to_server();
  if (phase_ == Phase::flowing) work += to_peer();
  if (phase_ == Phase::flowing) look_at_ends(work, now_ns);
  // A command that finds no room is repeated: until it is given the peer's bytes are not thrown away.
  if (phase_ == Phase::resetting && connection_.abort()) let_go();
  return work;
}

uint32_t Forward::to_server() noexcept {
  uint32_t work = 0;
  while (work < kTurn && !peer_ended_) {
    const std::span<const Slice> run = connection_.readable();
    if (run.empty()) return work;
    if (run.front().end != StreamEnd::none) {
      connection_.advance(1);
      connection_.release(1);
      server_->finish_sending();
      peer_ended_ = true;
      return work + 1;
    }
    std::array<Bytes, ServerLink::kPiecesMax> pieces;
    std::size_t count = 0;
    std::size_t bytes = 0;
    uint32_t used = slice_used_;
    for (const Slice& slice : run) {
      if (count == pieces.size() || slice.end != StreamEnd::none) break;
      pieces[count] = Bytes{slice.data, slice.length}.subspan(used);
      bytes += pieces[count++].size();
      used = 0;
    }
    const ServerLink::Step step = server_->send(std::span<const Bytes>{pieces}.first(count));
    if (step.failed || step.bytes > bytes) {
      fail(End::server_gone);
      return work;
    }
    take_slices(step.bytes);
    bytes_to_server.add(step.bytes);
    if (step.bytes > 0) work += static_cast<uint32_t>(count);
    if (step.bytes < bytes) return work;
  }
  return work;
}

void Forward::take_slices(std::size_t bytes) noexcept {
  std::size_t left = bytes + slice_used_;
  uint32_t whole = 0;
  for (const Slice& slice : connection_.readable()) {
    if (slice.end != StreamEnd::none || left < slice.length) break;
    left -= slice.length;
    ++whole;
  }
  slice_used_ = static_cast<uint32_t>(left);
  connection_.advance(whole);
  connection_.release(whole);
}

uint32_t Forward::to_peer() noexcept {
  uint32_t work = 0;
  while (work < kTurn) {
    if (inbox_first_ == inbox_end_) {
      if (server_ended_) break;
      const ServerLink::Step step = server_->receive(inbox_);
      if (step.failed || step.bytes > inbox_.size()) {
        fail(End::server_gone);
        return work;
      }
      server_ended_ = step.ended;
      if (step.bytes == 0) break;
      inbox_first_ = 0;
      inbox_end_ = step.bytes;
    }
    const std::size_t bytes = std::min(inbox_end_ - inbox_first_, ConnectionCommand::kBytesMax);
    if (!connection_.send(Bytes{inbox_}.subspan(inbox_first_, bytes))) return work;
    inbox_first_ += bytes;
    bytes_to_peer.add(bytes);
    ++work;
  }
  if (server_ended_ && inbox_first_ == inbox_end_ && !closed_ && connection_.close()) {
    closed_ = true;
    ++work;
  }
  return work;
}

void Forward::look_at_ends(uint32_t work, uint64_t now_ns) noexcept {
  if (work > 0) moved_ns_ = now_ns;
  if (peer_ended_ && closed_) {
    end_ = End::orderly;
    return let_go();
  }
  const uint64_t still_ns = now_ns - moved_ns_;
  const bool ending = server_ended_ || connection_.published_end() == StreamEnd::fin || peer_ended_;
  if (ending && still_ns >= limits_.linger_ns) return fail(End::lingering);
  // The server's greeting has moved, and was no word of the peer's.
  if (connection_.bytes_received.read() == 0 && still_ns >= limits_.first_word_ns) fail(End::silent);
}

void Forward::fail(End why) noexcept {
  end_ = why;
  server_->close(/*reset=*/true);
  phase_ = Phase::resetting;
}

void Forward::let_go() noexcept {
  server_->close(/*reset=*/end_ != End::orderly);
  connection_.detach();
  phase_ = Phase::over;
}

void Forward::stop() noexcept {
  if (phase_ == Phase::over) return;
  if (end_ == End::none) end_ = End::given_up;
  static_cast<void>(connection_.abort());  // without room for it the poll core resets what is open at its end
  let_go();
}

int Forward::wake_fd() const noexcept {
  const bool reads = phase_ == Phase::flowing && !server_ended_ && inbox_first_ == inbox_end_;
  return reads ? server_->fd() : -1;
}

const char* to_text(Forward::End end) noexcept {
  switch (end) {
    case Forward::End::none:
      return "it goes on";
    case Forward::End::orderly:
      return "both sides have closed";
    case Forward::End::peer_gone:
      return "the peer was reset or is gone";
    case Forward::End::unreachable:
      return "the server does not take connections";
    case Forward::End::server_gone:
      return "the server has ended the connection";
    case Forward::End::silent:
      return "the peer has never said anything";
    case Forward::End::lingering:
      return "one side has closed and the other does not end";
    case Forward::End::given_up:
      return "the migration is over";
  }
  return "";
}

}  // namespace migrx

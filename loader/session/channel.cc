#include "loader/session/channel.h"

#include <algorithm>
#include <utility>

#include "loader/multifd/multifd_packet.h"

namespace migrx {

uint32_t Channel::do_work(uint32_t slices_max) noexcept {
  if (state_ == State::over) return 0;
  if (state_ < State::dismissed && directory_.over()) [[unlikely]]
    give_up();
  if (state_ >= State::dismissed) [[unlikely]]
    return state_ == State::dismissed ? drop(slices_max) : drain();
  const auto expanded_max = [slices_max](uint32_t taken) {
    return uint64_t{slices_max - taken} * kExpandedBytesPerSlice;
  };
  if (owed_bytes_ >= expanded_max(0)) [[unlikely]] {
    owed_bytes_ -= expanded_max(0);
    owed_turns.add();
    release_unneeded();
    return slices_max;
  }
  if (state_ == State::waiting) [[unlikely]] {
    wait_on();
    if (state_ == State::waiting) {
      parked_turns.add();
      release_unneeded();
      return 0;
    }
  }
  uint32_t work = 0;
  if (state_ == State::parked) {
    if (!parser_->ready()) {
      parked_turns.add();
      const std::span<const Slice> behind = connection_.readable();
      if (!behind.empty() && behind.front().end != StreamEnd::none) [[unlikely]]
        ends_parked_.store(true, std::memory_order_relaxed);
      release_unneeded();
      return 0;
    }
    state_ = State::streaming;
    // What the parser does after a barrier must not wait for more bytes to come: others wait for it.
    feed({});
    if (state_ == State::streaming) replay();
    if (state_ != State::streaming) {
      release_unneeded();
      return 1;
    }
    work = 1;
  }
  uint32_t taken = 0;
  while (owed_bytes_ < expanded_max(taken) && (state_ == State::streaming || state_ == State::identifying)) {
    const std::span<const Slice> all = connection_.readable();
    const std::span<const Slice> run = all.first(std::min<std::size_t>(all.size(), slices_max - taken));
    if (run.empty()) break;
    uint32_t done = 0;
    while (done < run.size()) {
      if (state_ == State::streaming && slice_used_ == 0) [[likely]] {
        const uint32_t plain = take_page_data(run.subspan(done));
        done += plain;
        if (done == run.size()) break;
      }
      const Slice& slice = run[done];
      if (slice.end != StreamEnd::none) [[unlikely]] {
        stream_ended(slice.end);
        ++done;
        break;
      }
      const Bytes piece = Bytes{slice.data, slice.length}.subspan(slice_used_);
      std::size_t used = 0;
      while (state_ == State::identifying && used < piece.size())
        [[unlikely]] used += identify(piece.subspan(used));
      if (done + 1 < run.size()) prefetch_slice(run[done + 1]);
      if (state_ == State::streaming) [[likely]]
        used += feed(piece.subspan(used));
      if (used < piece.size()) [[unlikely]] {
        slice_used_ += static_cast<uint32_t>(used);
        break;  // parked or over
      }
      slice_used_ = 0;
      advanced_bytes_ += slice.length;
      ++done;
      if (state_ != State::streaming && state_ != State::identifying) break;
      if (owed_bytes_ >= expanded_max(taken + done)) break;
    }
    connection_.advance(done);
    taken += done;
    if (done < run.size()) break;
  }
  const bool turn_used_up = owed_bytes_ >= expanded_max(taken);
  owed_bytes_ -= std::min(owed_bytes_, expanded_max(taken));
  slices.add(taken);
  if (state_ == State::draining) [[unlikely]]
    drain();
  else
    release_unneeded();
  return turn_used_up ? slices_max : work + taken;
}

std::size_t Channel::identify(Bytes piece) noexcept {
  const std::size_t wanted =
      std::min<std::size_t>(wanted_.load(std::memory_order_relaxed), ChannelDirectory::kGreetingMax);
  const std::size_t n = std::min(piece.size(), wanted - greeting_bytes_);
  std::memcpy(greeting_.get() + greeting_bytes_, piece.data(), n);
  greeting_bytes_ += n;
  introduce(directory_.identify({greeting_.get(), greeting_bytes_}, connection_, worker_));
  return n;
}

void Channel::introduce(const Introduction& introduction) noexcept {
  wanted_.store(introduction.wanted, std::memory_order_relaxed);
  switch (introduction.kind) {
    case Introduction::Kind::more:
      break;
    case Introduction::Kind::waits:
      may_be_multifd_.store(false, std::memory_order_relaxed);
      state_ = State::waiting;
      break;
    case Introduction::Kind::stranger:
      may_be_multifd_.store(introduction.multifd_greeting > 0, std::memory_order_relaxed);
      refuse(introduction.multifd_greeting, introduction.claim);
      break;
    case Introduction::Kind::admitted:
      parser_ = introduction.parser;
      may_be_multifd_.store(parser_->may_be_multifd(), std::memory_order_relaxed);
      (parser_->identified() ? identified_ : secured_).store(true, std::memory_order_release);
      state_ = State::streaming;
      replay();
      break;
  }
}

// Who has not said what it is may be main, which is reset before the others.
void Channel::give_up() noexcept {
  if (state_ != State::identifying || !directory_.holds_dismissed())
    dismiss();
  else if (greeting_bytes_ >= ChannelDirectory::kMagicBytes)
    introduce(directory_.identify({greeting_.get(), greeting_bytes_}, connection_, worker_));
}

void Channel::dismiss() noexcept {
  const bool held = may_be_multifd() && end() == StreamEnd::none && directory_.holds_dismissed();
  state_ = held ? State::dismissed : State::draining;
}

void Channel::refuse(uint64_t said, Claim claim) noexcept {
  claim_.store(claim, std::memory_order_relaxed);
  said_unasked_.store(said, std::memory_order_relaxed);
  refused_.store(true, std::memory_order_release);
  dismiss();
}

void Channel::replay() noexcept {
  if (replayed_ == greeting_bytes_) return;
  replayed_ += feed(Bytes{greeting_.get(), greeting_bytes_}.subspan(replayed_));
}

// One of ours whose time has not come. What it says meanwhile waits in its ring.
void Channel::wait_on() noexcept {
  introduce(directory_.ask_again(connection_, worker_));
  const StreamEnd end = connection_.published_end();
  if (state_ == State::waiting && end != StreamEnd::none) introduce(directory_.left(connection_, end));
}

uint32_t Channel::take_page_data(std::span<const Slice> run) noexcept {
  const std::size_t taken = parser_->take_page_data(run);
  for (const Slice& slice : run.first(taken)) advanced_bytes_ += slice.length;
  return static_cast<uint32_t>(taken);
}

std::size_t Channel::feed(Bytes piece) noexcept {
  const ParseResult result = parser_->parse(piece);
  owed_bytes_ += parser_->expanded_bytes() - expanded_seen_;
  expanded_seen_ = parser_->expanded_bytes();
  if (secured_.load(std::memory_order_relaxed)) [[unlikely]] {
    may_be_multifd_.store(parser_->may_be_multifd(), std::memory_order_relaxed);
    if (parser_->identified()) {
      identified_.store(true, std::memory_order_release);
      secured_.store(false, std::memory_order_release);
    }
  }
  switch (result.status) {
    case ParseStatus::need_more:
    case ParseStatus::complete:
      break;
    case ParseStatus::parked:
      state_ = State::parked;
      break;
    case ParseStatus::refused:
      // Ciphertext: its greeting may be in more than one record.
      refuse(connection_.bytes_received.read(), parser_->claim());
      break;
    case ParseStatus::failed:
      directory_.channel_failed(parser_->error());
      dismiss();
      break;
  }
  return result.status == ParseStatus::complete ? piece.size() : result.consumed;
}

void Channel::stream_ended(StreamEnd end) noexcept {
  end_.store(end, std::memory_order_release);
  state_ = State::draining;
  if (parser_ == nullptr || !parser_->identified()) {
    refused_.store(true, std::memory_order_release);
    return;
  }
  if (StreamError error = parser_->end_of_stream()) {
    if (error.text[0] == '\0') {
      const char* why = end == StreamEnd::fin         ? "the source closed the connection"
                        : end == StreamEnd::reset     ? "the source reset the connection"
                        : end == StreamEnd::timed_out ? "the source no longer answers"
                                                      : "closed here";
      std::snprintf(error.text.data(), error.text.size(), "%s", why);
    }
    directory_.channel_failed(error);
  }
}

// Each turn, also when nothing came: slices kept for another node's worker may have closed the window, and
// then nothing comes before they are released.
void Channel::release_unneeded() noexcept {
  const uint32_t advanced = connection_.advanced_unreleased();
  if (advanced == 0) return;
  const uint64_t needed_from = parser_ != nullptr ? parser_->needed_from() : ChannelParser::kNothingNeeded;
  if (needed_from == ChannelParser::kNothingNeeded) [[likely]] {
    connection_.release(advanced);
    released_bytes_ = advanced_bytes_;
    return;
  }
  // Page runs on their way to another node's worker still refer to some of the bytes.
  uint32_t free = 0;
  for (const Slice& slice : connection_.unreleased()) {
    if (released_bytes_ + slice.length > needed_from) break;
    released_bytes_ += slice.length;
    ++free;
  }
  if (free > 0) connection_.release(free);
}

uint32_t Channel::drop(uint32_t slices_max) noexcept {
  uint32_t dropped = 0;
  const std::span<const Slice> all = connection_.readable();
  for (const Slice& slice : all.first(std::min<std::size_t>(all.size(), slices_max))) {
    ++dropped;
    advanced_bytes_ += slice.length;
    dropped_bytes_ += slice.length - std::exchange(slice_used_, 0);
    if (slice.end != StreamEnd::none) end_.store(slice.end, std::memory_order_release);
  }
  connection_.advance(dropped);
  if (claim() == Claim::surplus && dropped_bytes_ > kMultifdHeaderBytes) directory_.pages_dropped();
  if (end() != StreamEnd::none || !directory_.holds_dismissed()) {
    state_ = State::draining;
    return drain();
  }
  release_unneeded();
  return dropped;
}

uint32_t Channel::drain() noexcept {
  // Buffers that another node's worker still reads stay with us, and so does the memory it writes: the
  // session frees nothing before its channels have let go.
  if (parser_ != nullptr && parser_->needed_from() != ChannelParser::kNothingNeeded) return 0;
  state_ = State::over;
  connection_.detach();
  return 1;
}

}  // namespace migrx

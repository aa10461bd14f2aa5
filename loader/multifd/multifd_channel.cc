#include "loader/multifd/multifd_channel.h"

#include <algorithm>
#include <cinttypes>

namespace migrx {

MultifdChannel::MultifdChannel(const MultifdSession& session, const NodeRouter* router)
    : session_(session),
      router_(router),
      decoder_(make_page_decoder(session.compression, *session.kernels, session.decoder_limits)),
      in_(kMultifdBodyBytes),
      pages_(*session.kernels) {}

ChannelName MultifdChannel::name() const noexcept {
  const std::optional<MultifdId> known = id();
  return known ? ChannelName{*known} : ChannelName{};
}

MultifdChannel::Step MultifdChannel::fail(const StreamError& error) noexcept {
  error_ = error;
  error_.channel = name();
  state_ = State::failed;
  return Step::failed;
}

ParseResult MultifdChannel::parse(Bytes piece) noexcept {
  piece_offset_ = in_.offset() + in_.carried();
  in_.feed(piece);
  Step result;
  do {
    result = step();
  } while (result == Step::again);
  const std::size_t consumed = piece.size() - in_.available();
  in_.feed({});
  switch (result) {
    case Step::parked:
      return {consumed, ParseStatus::parked};
    case Step::failed:
      return {consumed, ParseStatus::failed};
    case Step::again:
    case Step::need_more:
      break;
  }
  return {consumed, ParseStatus::need_more};
}

std::size_t MultifdChannel::take_page_data(std::span<const Slice> slices) noexcept {
  if (state_ != State::payload || decoder_ != nullptr || lane_ != nullptr) return 0;
  std::size_t taken = 0;
  std::size_t bytes = 0;
  for (const Slice& slice : slices) {
    // The payload's last slice goes through parse(), which knows what follows.
    if (slice.end != StreamEnd::none || slice.length >= payload_left_ - bytes) break;
    if (++taken < slices.size()) prefetch_slice(slices[taken]);
    pages_.write({slice.data, slice.length});
    bytes += slice.length;
  }
  payload_left_ -= static_cast<uint32_t>(bytes);
  in_.pass(bytes);
  return taken;
}

MutableBytes MultifdChannel::page_place(std::size_t from, std::size_t to) noexcept {
  if (state_ != State::payload || decoder_ != nullptr || lane_ != nullptr) return {};
  return pages_.place(from, to);
}

void MultifdChannel::page_data_written(std::size_t bytes) noexcept {
  pages_.pass(bytes);
  payload_left_ -= static_cast<uint32_t>(bytes);
  in_.pass(bytes);
  if (payload_left_ == 0) state_ = State::pages_done;
}

MultifdChannel::Step MultifdChannel::step() noexcept {
  const std::byte* p = nullptr;
  switch (state_) {
    case State::init:
      if ((p = in_.take(kMultifdInitBytes)) == nullptr) return Step::need_more;
      return on_init(p);

    case State::prefix: {
      if (in_.carried() == 0) packet_offset_ = in_.offset();
      if ((p = in_.take(kMultifdPrefixBytes)) == nullptr) return Step::need_more;
      if (const StreamError error = parse_multifd_prefix(p, packet_offset_, flags_)) return fail(error);
      state_ = (flags_ & multifd_flag::kDeviceState) != 0 ? State::device_state : State::body;
      return Step::again;
    }

    case State::body:
      if ((p = in_.take(kMultifdBodyBytes)) == nullptr) return Step::need_more;
      return on_body(p);

    case State::device_state:
      if ((p = in_.take(kMultifdDeviceBodyBytes)) == nullptr) return Step::need_more;
      return fail(refuse_device_state(p, packet_offset_));

    case State::payload:
      return on_payload();

    case State::pages_done:
      return on_pages_done();

    case State::copies:
      return routed_.collect() ? on_copies_done() : Step::parked;

    case State::barrier:
      if (!session_.barrier->released(epoch_)) return Step::parked;
      epoch_ = epoch_.next();
      state_ = State::prefix;
      return Step::again;

    case State::failed:
      return Step::failed;
  }
  return Step::failed;
}

MultifdChannel::Step MultifdChannel::on_init(const std::byte* bytes) noexcept {
  MultifdInit init;
  if (const StreamError error = parse_multifd_init(bytes, 0, init)) return fail(error);
  if (init.id.number() >= session_.barrier->channels())
    return fail(
        make_error(ErrorClass::mismatch, 0, "multifd init packet: id",
                   "channel id %u, but parameter multifd-channels is %u here; set it alike at the source",
                   init.id.number(), session_.barrier->channels()));
  std::copy_n(bytes, kMultifdInitBytes, init_packet_.begin());
  id_.store(static_cast<int32_t>(init.id.number()), std::memory_order_release);
  state_ = State::prefix;
  return Step::again;
}

MultifdChannel::Step MultifdChannel::on_body(const std::byte* body) noexcept {
  MultifdPacket packet;
  if (const StreamError error =
          parse_multifd_body(flags_, body, packet_offset_, session_.compression, packet))
    return fail(error);
  counters_.packets.add();
  runs_ = run_ = run_done_ = 0;
  payload_left_ = packet.payload_bytes;
  if (packet.has_pages()) {
    if (resolve_pages(packet) == Step::failed) return Step::failed;
    clear_zero_pages(packet);
  }
  if (packet.normal_pages == 0) {
    state_ = State::pages_done;
    return Step::again;
  }
  counters_.normal_pages.add(packet.normal_pages);
  counters_.payload_bytes.add(packet.payload_bytes);
  if (decoder_ != nullptr) {
    const uint32_t bytes = packet.normal_pages * kPageBytes;
    expanded_bytes_ += bytes - std::min(bytes, payload_left_);
    const DecodeStatus status = decoder_->begin({page_runs_.data(), runs_}, payload_left_);
    if (status != DecodeStatus::ok) return fail_decode(status);
  } else {
    pages_.begin({page_runs_.data(), runs_});  // next_packet_size was checked to be their sum
  }
  state_ = State::payload;
  return Step::again;
}

MultifdChannel::Step MultifdChannel::resolve_pages(const MultifdPacket& packet) noexcept {
  // Sources begin every channel with SYNC 0 and main's START section holds marker 0, so the block list is
  // complete once SYNC 0 is released. A data packet before it cannot be placed.
  if (epoch_ == Epoch{0})
    return fail(make_error(ErrorClass::bad_stream, packet_offset_, "multifd packet: ramblock",
                           "pages before the first SYNC"));
  // Every page stands before the SYNC that main's last marker waits for; after it the guest may run.
  if (!session_.barrier->begin_pages(*id()))
    return fail(make_error(ErrorClass::bad_stream, packet_offset_, "multifd packet: ramblock",
                           "pages after the end of RAM"));
  if (session_.rounds != nullptr && noted_epoch_ != epoch_) session_.rounds->note(noted_epoch_ = epoch_);
  if (block_ == nullptr || block_->idstr() != packet.ramblock) {
    block_ = session_.blocks->find(packet.ramblock);
    if (block_ == nullptr) {
      std::array<char, 256> shown{};
      std::transform(packet.ramblock.begin(), packet.ramblock.end(), shown.begin(),
                     [](char c) { return c >= ' ' && c <= '~' ? c : '?'; });
      return fail(make_error(ErrorClass::bad_stream, packet_offset_, "multifd packet: ramblock",
                             "\"%.200s\" is not in the block list of the main channel", shown.data()));
    }
  }
  target_ = block_->target();
  lane_ = router_ != nullptr && decoder_ == nullptr ? router_->lane_to(block_->node()) : nullptr;

  const uint32_t pages = packet.normal_pages + packet.zero_pages;
  for (uint32_t i = 0; i < pages; ++i) {
    const uint64_t offset = load_be64(packet.offsets + 8 * std::size_t{i});
    if (!block_->contains_page(offset))
      return fail(make_error(ErrorClass::bad_stream, packet_offset_ + kMultifdFixedBytes + 8 * uint64_t{i},
                             "multifd packet: offset",
                             "page %u of %u: 0x%" PRIx64
                             " is no page of block \"%.200s\", which has 0x%" PRIx64 " bytes",
                             i, pages, offset, block_->idstr().c_str(), block_->used_length()));
    if (i >= packet.normal_pages) continue;
    std::byte* const dst = target_.base + offset;
    if (runs_ > 0 && page_runs_[runs_ - 1].dst + page_runs_[runs_ - 1].bytes == dst) {
      page_runs_[runs_ - 1].bytes += kPageBytes;
    } else {
      if (packet.zero_pages == 0) note_run();
      page_runs_[runs_++] = {dst, kPageBytes};
    }
  }
  if (packet.zero_pages == 0)
    note_run();
  else
    note_packet(packet);
  counters_.begun_anew.set(passes_.begun_anew());
  return Step::again;
}

// First and last page of the last run.
void MultifdChannel::note_run() noexcept {
  if (runs_ == 0) return;
  const PageRun& run = page_runs_[runs_ - 1];
  const auto first = static_cast<uint64_t>(run.dst - target_.base);
  passes_.note(block_, first);
  passes_.note(block_, first + run.bytes - kPageBytes);
}

// A source that looks for zero pages by itself puts them last and others in their places (QEMU 10:
// migration/multifd-zero-page.c), so only the packet as a whole has a place in the pass.
void MultifdChannel::note_packet(const MultifdPacket& packet) noexcept {
  uint64_t lowest = ~uint64_t{0};
  uint64_t highest = 0;
  for (uint32_t i = 0; i < packet.normal_pages + packet.zero_pages; ++i) {
    const uint64_t offset = load_be64(packet.offsets + 8 * std::size_t{i});
    lowest = std::min(lowest, offset);
    highest = std::max(highest, offset);
  }
  passes_.note(block_, lowest);
  passes_.note(block_, highest);
}

void MultifdChannel::clear_zero_pages(const MultifdPacket& packet) noexcept {
  uint32_t written = 0;
  for (uint32_t i = packet.normal_pages; i < packet.normal_pages + packet.zero_pages; ++i) {
    const uint64_t page = load_be64(packet.offsets + 8 * std::size_t{i}) / kPageBytes;
    if (target_.still_zero(page)) continue;
    pages_.clear_page(target_.base + page * kPageBytes);
    target_.bits->set(page);
    ++written;
  }
  expanded_bytes_ += uint64_t{written} * kPageBytes;
  counters_.zero_pages_written.add(written);
  counters_.zero_pages_skipped.add(packet.zero_pages - written);
}

MultifdChannel::Step MultifdChannel::on_payload() noexcept {
  if (decoder_ != nullptr) return decode_payload();
  return lane_ != nullptr ? route_payload() : write_payload();
}

MultifdChannel::Step MultifdChannel::write_payload() noexcept {
  const Bytes piece = in_.take_some(payload_left_);
  pages_.write(piece);
  payload_left_ -= static_cast<uint32_t>(piece.size());
  if (payload_left_ > 0) return Step::need_more;
  state_ = State::pages_done;
  return Step::again;
}

MultifdChannel::Step MultifdChannel::route_payload() noexcept {
  while (payload_left_ > 0) {
    if (in_.available() == 0) return Step::need_more;
    if (!lane_->has_room() || !routed_.room_for(*lane_, piece_offset_)) return Step::parked;
    const PageRun& run = page_runs_[run_];
    const Bytes piece = in_.take_some(run.bytes - run_done_);
    if (!lane_->push({run.dst + run_done_, piece.data(), static_cast<uint32_t>(piece.size())}))
      return Step::parked;  // not reached: there was room, and only this worker pushes
    routed_.note(*lane_, piece_offset_);
    counters_.routed_bytes.add(piece.size());
    payload_left_ -= static_cast<uint32_t>(piece.size());
    run_done_ += static_cast<uint32_t>(piece.size());
    if (run_done_ < run.bytes) continue;
    ++run_;
    run_done_ = 0;
  }
  state_ = State::pages_done;
  return Step::again;
}

MultifdChannel::Step MultifdChannel::decode_payload() noexcept {
  while (payload_left_ > 0) {
    const Bytes piece = in_.take_some(payload_left_);
    if (piece.empty()) return Step::need_more;
    payload_left_ -= static_cast<uint32_t>(piece.size());
    const DecodeStatus status = decoder_->feed(piece);
    if (status != DecodeStatus::ok) return fail_decode(status);
  }
  const DecodeStatus status = decoder_->finish();
  if (status != DecodeStatus::ok) return fail_decode(status);
  state_ = State::pages_done;
  return Step::again;
}

MultifdChannel::Step MultifdChannel::fail_decode(DecodeStatus status) noexcept {
  const ErrorClass error_class = status == DecodeStatus::out_of_memory      ? ErrorClass::io
                                 : status == DecodeStatus::window_too_large ? ErrorClass::mismatch
                                                                            : ErrorClass::bad_stream;
  return fail(make_error(error_class, packet_offset_, "multifd packet: payload", "%s: %s",
                         to_string(session_.compression), to_string(status)));
}

MultifdChannel::Step MultifdChannel::on_pages_done() noexcept {
  // Routed pages are marked before they are copied: a reader that must not miss one takes the bits after a
  // barrier, and there the copies are complete.
  for (uint32_t i = 0; i < runs_; ++i)
    target_.bits->set_range(static_cast<uint64_t>(page_runs_[i].dst - target_.base) / kPageBytes,
                            page_runs_[i].bytes / kPageBytes);
  runs_ = 0;
  if ((flags_ & multifd_flag::kSync) == 0) {
    state_ = State::prefix;
    return Step::again;
  }
  state_ = State::copies;
  return Step::again;
}

MultifdChannel::Step MultifdChannel::on_copies_done() noexcept {
  pages_.fence();
  session_.barrier->arrive(*id(), epoch_);
  counters_.syncs.add();
  state_ = State::barrier;
  return Step::again;
}

bool MultifdChannel::ready() noexcept {
  switch (state_) {
    case State::barrier:
      return session_.barrier->released(epoch_);
    case State::copies:
      return routed_.collect();
    case State::payload:
      return lane_ == nullptr || (lane_->has_room() && routed_.room_for(*lane_, in_.offset()));
    case State::init:
    case State::prefix:
    case State::body:
    case State::device_state:
    case State::pages_done:
    case State::failed:
      break;
  }
  return true;
}

uint64_t MultifdChannel::needed_from() noexcept {
  return routed_.collect() ? kNothingNeeded : routed_.oldest();
}

StreamError MultifdChannel::end_of_stream() noexcept {
  pages_.fence();  // nobody will come by to do it later
  const char* inside = nullptr;
  switch (state_) {
    case State::init:
      inside = "multifd init packet";
      break;
    case State::prefix:
      if (in_.carried() > 0) inside = "multifd packet: header";
      break;
    case State::body:
    case State::device_state:
      inside = "multifd packet: header";
      break;
    case State::payload:
      inside = "multifd packet: payload";
      break;
    case State::pages_done:
    case State::copies:
    case State::barrier:
      break;
    case State::failed:
      return error_;
  }
  if (inside == nullptr) return {};
  StreamError error = make_error(ErrorClass::truncated, in_.offset() + in_.carried(), inside,
                                 "the connection ended here, after %" PRIu64 " packets, in epoch %" PRIu64,
                                 counters_.packets.read(), epoch_.number());
  error.channel = name();
  return error;
}

StreamError MultifdChannel::closed_too_early() const noexcept {
  StreamError error =
      make_error(ErrorClass::truncated, in_.offset(), "multifd channel",
                 "closed after %" PRIu64 " packets, in epoch %" PRIu64 ", before RAM was complete",
                 counters_.packets.read(), epoch_.number());
  error.channel = name();
  return error;
}

}  // namespace migrx

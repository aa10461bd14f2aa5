#include "loader/tls/tls_channel.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstring>

#include "loader/ram/ram_block.h"

namespace migrx {
namespace {

// Content types, RFC 8446 section 5.1.
constexpr uint8_t kAlert = 21;
constexpr uint8_t kHandshake = 22;
constexpr uint8_t kApplicationData = 23;
constexpr unsigned kLegacyVersion = 0x0303;

uint8_t octet(std::byte b) noexcept {
  return std::to_integer<uint8_t>(b);
}

}  // namespace

TlsChannel::TlsChannel(Handoff& connection, ChannelDirectory& directory, uint32_t worker,
                       const GcmKernels* kernels)
    : connection_(connection),
      directory_(directory),
      worker_(worker),
      cipher_(kernels),
      handshake_(kHandshakeBytes) {}

TlsChannel::~TlsChannel() {
  if (staging_ != nullptr) OPENSSL_cleanse(staging_.get(), kTlsRecordBytesMax);
}

void TlsChannel::establish(const TlsKeys& keys, Bytes rest) {
  keys_ = keys;
  rest_.assign(rest.begin(), rest.end());
  phase_.store(Phase::open, std::memory_order_release);  // pairs with on_handshake()
}

void TlsChannel::resume(const TlsKeys& keys) {
  keys_ = keys;
  phase_.store(Phase::open, std::memory_order_release);  // pairs with on_set_aside()
}

void TlsChannel::fail_record(const std::string& text) {
  aside_problem_ = text;
  phase_.store(Phase::refused, std::memory_order_release);
}

TlsChannel::Step TlsChannel::fail(const char* field, const char* text) noexcept {
  error_ = make_error(ErrorClass::bad_stream, ciphertext_bytes_, field, "%s", text);
  state_ = State::failed;
  return Step::failed;
}

ParseResult TlsChannel::parse(Bytes piece) noexcept {
  const std::size_t given = piece.size();
  for (;;) {
    // What came with the handshake goes first.
    Bytes rest;
    const bool from_rest = state_ != State::handshaking && rest_read_ < rest_.size();
    if (from_rest) rest = Bytes{rest_}.subspan(rest_read_);
    Bytes& next = from_rest ? rest : piece;
    const std::size_t before = next.size();
    const Step step = this->step(next);
    const std::size_t used = before - next.size();
    ciphertext_bytes_ += used;
    if (from_rest) rest_read_ += used;
    switch (step) {
      case Step::again:
        continue;
      case Step::need_more:
        if (from_rest && !piece.empty()) continue;
        return {given - piece.size(), ParseStatus::need_more};
      case Step::parked:
        return {given - piece.size(), ParseStatus::parked};
      case Step::refused:
        return {given - piece.size(), ParseStatus::refused};
      case Step::failed:
        return {given - piece.size(), ParseStatus::failed};
    }
  }
}

TlsChannel::Step TlsChannel::step(Bytes& piece) noexcept {
  switch (state_) {
    case State::handshaking:
      return on_handshake(piece);
    case State::header:
      return on_header(piece);
    case State::body:
      return on_body(piece);
    case State::tag:
      return on_tag(piece);
    case State::deliver:
      return deliver();
    case State::waiting:
      return introduce(answer_);
    case State::replay:
      return replay();
    case State::set_aside:
      return on_set_aside();
    case State::closed:
      // Nothing may follow close_notify (RFC 8446, section 6.1).
      return piece.empty() ? Step::need_more : fail("TLS record", "bytes after the peer's close_notify");
    case State::failed:
      break;
  }
  return Step::failed;
}

TlsChannel::Step TlsChannel::on_handshake(Bytes& piece) noexcept {
  switch (phase()) {
    case Phase::handshaking:
      if (!wants_more_.load(std::memory_order_acquire)) return Step::parked;  // pairs with want_more()
      if (piece.empty()) return Step::need_more;
      wants_more_.store(false, std::memory_order_relaxed);
      piece = piece.subspan(handshake_.write(piece));
      return Step::parked;
    case Phase::refused:
      state_ = State::failed;
      return Step::refused;
    case Phase::open:
    case Phase::set_aside:
    case Phase::closed:
      break;
  }
  // Bytes that the control thread has not taken follow those that it gives back.
  for (Bytes more = handshake_.readable(); !more.empty(); more = handshake_.readable()) {
    rest_.insert(rest_.end(), more.begin(), more.end());
    handshake_.consume(more.size());
  }
  ciphertext_bytes_ -= rest_.size();  // counted when they are read
  take_keys();
  staging_ = std::make_unique<std::byte[]>(kTlsRecordBytesMax);
  state_ = State::header;
  return Step::again;
}

void TlsChannel::take_keys() noexcept {
  keys_taken_ = cipher_.set_keys(keys_);
  keys_ = TlsKeys{};
}

void TlsChannel::keep(Bytes bytes) noexcept {
  if (!bytes.empty() && aside_bytes_ + bytes.size() <= kAsideBytesMax)
    std::memcpy(aside_.data() + aside_bytes_, bytes.data(), bytes.size());
  aside_bytes_ += bytes.size();
}

TlsChannel::Step TlsChannel::on_header(Bytes& piece) noexcept {
  if (!keys_taken_) return fail("TLS keys", "this host's OpenSSL refuses the suite that was negotiated");
  const std::size_t header_bytes = kTlsHeaderBytes + cipher_.explicit_bytes();
  const std::size_t n = std::min(piece.size(), header_bytes - header_have_);
  if (n > 0) std::memcpy(header_.data() + header_have_, piece.data(), n);
  header_have_ += n;
  piece = piece.subspan(n);
  if (header_have_ < header_bytes) return Step::need_more;
  header_have_ = 0;
  const uint8_t type = octet(header_[0]);
  const unsigned version = octet(header_[1]) * 256U + octet(header_[2]);
  const std::size_t length = octet(header_[3]) * 256U + octet(header_[4]);
  const bool tls13 = cipher_.version() == TlsVersion::tls13;
  if (type != kApplicationData && (tls13 || (type != kAlert && type != kHandshake)))
    return fail("TLS record: type", "a record that is no application data, and none is legal here");
  if (version != kLegacyVersion) return fail("TLS record: version", "not 3.3");
  if (length < cipher_.explicit_bytes() + kTlsTagBytes + (tls13 ? 1 : 0) || length > kTlsRecordBytesMax)
    return fail("TLS record: length", "shorter than a tag, or longer than any record may be");
  text_bytes_ = length - cipher_.explicit_bytes() - kTlsTagBytes;
  text_have_ = tag_have_ = 0;
  aside_sequence_ = cipher_.sequence();
  aside_bytes_ = 0;
  keep({header_.data(), header_bytes});
  cipher_.begin(header_.data(), header_.data() + kTlsHeaderBytes, text_bytes_);
  page_bytes_ = text_bytes_ - (tls13 ? 1 : 0);
  if (page_bytes_ % kPageBytes != 0 || inner_ == nullptr ||
      (place_ = inner_->page_place(0, page_bytes_)).empty())
    page_bytes_ = 0;
  state_ = State::body;
  return Step::again;
}

TlsChannel::Step TlsChannel::on_body(Bytes& piece) noexcept {
  const std::size_t n = std::min(piece.size(), text_bytes_ - text_have_);
  const Bytes text = piece.first(n);
  if (text_bytes_ < kAsideBytesMax) keep(text);
  if (page_bytes_ > 0)
    open_pages(text.data(), n);
  else
    cipher_.decrypt(staging_.get() + text_have_, text.data(), n);
  text_have_ += n;
  piece = piece.subspan(n);
  if (text_have_ < text_bytes_) return Step::need_more;
  state_ = State::tag;
  return Step::again;
}

void TlsChannel::open_pages(const std::byte* text, std::size_t n) noexcept {
  std::size_t done = 0;
  while (done < n && text_have_ + done < page_bytes_) {
    if (place_.empty()) place_ = inner_->page_place(text_have_ + done, page_bytes_);
    const std::size_t part = std::min(n - done, place_.size());
    cipher_.decrypt_streaming(place_.data(), text + done, part);
    place_ = place_.subspan(part);
    done += part;
  }
  // The type goes where it would be without pages.
  if (done < n) cipher_.decrypt(staging_.get() + text_have_ + done, text + done, n - done);
}

TlsChannel::Step TlsChannel::on_tag(Bytes& piece) noexcept {
  const std::size_t n = std::min(piece.size(), kTlsTagBytes - tag_have_);
  if (n > 0) std::memcpy(tag_.data() + tag_have_, piece.data(), n);
  tag_have_ += n;
  piece = piece.subspan(n);
  if (tag_have_ < kTlsTagBytes) return Step::need_more;
  if (!cipher_.finish(tag_.data()))
    return fail("TLS record: tag", "the record was damaged or forged on its way");
  counters_.records.add();
  if (page_bytes_ > 0 && keep_pages()) [[likely]] {
    inner_->page_data_written(page_bytes_);
    counters_.straight_pages.add(page_bytes_ / kPageBytes);
    text_bytes_ = delivered_ = 0;
    state_ = State::deliver;
    return Step::again;
  }
  uint8_t type = octet(header_[0]);
  std::size_t bytes = text_bytes_;
  if (cipher_.version() == TlsVersion::tls13) {
    // The type is the last byte that is not zero (RFC 8446, section 5.4).
    while (bytes > 0 && staging_[bytes - 1] == std::byte{0}) --bytes;
    if (bytes == 0) return fail("TLS record: type", "nothing but padding");
    type = octet(staging_[--bytes]);
  }
  if (bytes > kTlsTextBytesMax) return fail("TLS record: length", "more text than any record may have");
  if (bytes < kRecordCostBytes) expanded_bytes_ += kRecordCostBytes - bytes;
  if (type != kApplicationData) {
    if (text_bytes_ < kAsideBytesMax) keep(tag_);
    if (text_bytes_ >= kAsideBytesMax || aside_bytes_ > kAsideBytesMax)
      return fail("TLS record: type", "a handshake message or alert that is too long");
    state_ = State::set_aside;
    phase_.store(Phase::set_aside, std::memory_order_release);  // pairs with phase() of the control thread
    return Step::parked;
  }
  text_bytes_ = bytes;
  delivered_ = 0;
  state_ = State::deliver;
  return Step::again;
}

bool TlsChannel::keep_pages() noexcept {
  const std::byte type = cipher_.version() == TlsVersion::tls13 ? staging_[page_bytes_] : header_[0];
  if (octet(type) == kApplicationData) return true;
  // Padding, or a record that is not for the stream at all.
  for (std::size_t at = 0; at < page_bytes_;) {
    const MutableBytes place = inner_->page_place(at, page_bytes_);
    std::memcpy(staging_.get() + at, place.data(), place.size());
    at += place.size();
  }
  return false;
}

TlsChannel::Step TlsChannel::greet() noexcept {
  const std::size_t n = std::min(text_bytes_ - delivered_, greeting_wanted_ - greeting_.size());
  const std::byte* const first = staging_.get() + delivered_;
  greeting_.insert(greeting_.end(), first, first + n);
  delivered_ += n;
  if (greeting_.size() < greeting_wanted_) {
    state_ = State::header;
    return Step::again;
  }
  return introduce(directory_.identify(greeting_, connection_, worker_));
}

TlsChannel::Step TlsChannel::introduce(const Introduction& introduction) noexcept {
  switch (introduction.kind) {
    case Introduction::Kind::more:
      greeting_wanted_ = std::min(introduction.wanted, ChannelDirectory::kGreetingMax);
      return greeting_wanted_ > greeting_.size() ? Step::again
                                                 : fail("TLS plaintext", "a greeting without end");
    case Introduction::Kind::waits:
      may_be_multifd_ = false;
      state_ = State::waiting;
      return Step::parked;
    case Introduction::Kind::stranger:
      may_be_multifd_ = introduction.multifd_greeting > 0;
      claim_ = introduction.claim;
      state_ = State::failed;
      return Step::refused;
    case Introduction::Kind::admitted:
      inner_ = introduction.parser;
      may_be_multifd_ = inner_->may_be_multifd();
      state_ = State::replay;
      return Step::again;
  }
  return Step::failed;
}

TlsChannel::Step TlsChannel::replay() noexcept {
  const Step step = feed(Bytes{greeting_}.subspan(replayed_), replayed_);
  if (step == Step::again) state_ = State::deliver;
  return step;
}

TlsChannel::Step TlsChannel::feed(Bytes bytes, std::size_t& used) noexcept {
  const ParseResult result = inner_->parse(bytes);
  expanded_bytes_ += inner_->expanded_bytes() - inner_expanded_;
  inner_expanded_ = inner_->expanded_bytes();
  switch (result.status) {
    case ParseStatus::need_more:
    case ParseStatus::complete:
      used += bytes.size();
      return Step::again;
    case ParseStatus::parked:
      used += result.consumed;
      return Step::parked;
    case ParseStatus::refused:
      state_ = State::failed;
      return Step::refused;
    case ParseStatus::failed:
      error_ = inner_->error();
      state_ = State::failed;
      return Step::failed;
  }
  return Step::failed;
}

TlsChannel::Step TlsChannel::deliver() noexcept {
  if (inner_ == nullptr) [[unlikely]]
    return greet();
  const Step step = feed({staging_.get() + delivered_, text_bytes_ - delivered_}, delivered_);
  if (step != Step::again) return step;
  // Another node's worker may still read the staging buffer.
  if (inner_->needed_from() != kNothingNeeded) return Step::parked;
  state_ = State::header;
  return Step::again;
}

TlsChannel::Step TlsChannel::on_set_aside() noexcept {
  switch (phase()) {
    case Phase::set_aside:
    case Phase::handshaking:
      return Step::parked;
    case Phase::open:
      take_keys();
      counters_.key_updates.add();
      state_ = State::header;
      return Step::again;
    case Phase::closed:
      state_ = State::closed;
      return Step::again;
    case Phase::refused:
      return fail("TLS record", aside_problem_.c_str());
  }
  return Step::failed;
}

bool TlsChannel::ready() noexcept {
  switch (state_) {
    case State::handshaking:
      return phase() != Phase::handshaking || wants_more_.load(std::memory_order_acquire);
    case State::set_aside:
      return phase() != Phase::set_aside;
    case State::waiting: {
      answer_ = directory_.ask_again(connection_, worker_);
      const StreamEnd end = connection_.published_end();
      if (answer_.kind == Introduction::Kind::waits && end != StreamEnd::none)
        answer_ = directory_.left(connection_, end);
      return answer_.kind != Introduction::Kind::waits;
    }
    case State::replay:
      return inner_->ready();
    case State::deliver:
      return inner_ == nullptr || (inner_->ready() && inner_->needed_from() == kNothingNeeded);
    case State::header:
    case State::body:
    case State::tag:
    case State::closed:
    case State::failed:
      break;
  }
  return true;
}

StreamError TlsChannel::end_of_stream() noexcept {
  if (state_ == State::failed) return error_;
  if (inner_ == nullptr) return {};
  StreamError error = inner_->end_of_stream();
  if (error) return error;
  // Without close_notify the end is as good as the stream says (QEMU up to 9.2 sends none), but not
  // inside a record.
  if (state_ == State::body || state_ == State::tag || header_have_ > 0)
    return make_error(ErrorClass::truncated, ciphertext_bytes_, "TLS record",
                      "the connection ended inside a record");
  return {};
}

}  // namespace migrx

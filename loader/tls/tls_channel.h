// The record layer of one connection: ciphertext slices in, the plaintext stream into the parser of main or
// of a multifd channel. It stands between a hand-off ring and that parser, on the loader worker; poll cores
// and TCP know nothing of it.
//
//   handshaking ─keys─▶ header ─▶ body ─▶ tag ─▶ deliver ─▶ header …
//        │                                 └─ not application data ─▶ set_aside ─new keys─▶ header
//        └─refused─▶ over                                                 └─close_notify─▶ closed
// While nobody knows whose channel this is, deliver asks the directory: ─▶ waiting (its time has not come) ─▶
// replay.
//
// Records are opened as their pieces come (record_cipher.h), so packet buffers go home at once and a window
// that is smaller than a record does not matter. Plaintext is acted upon only when its record's tag was right
// (RFC 8446, section 5.2): it waits in a staging buffer of one record, which stays in the caches.
//
// Records that hold page data, whole pages and nothing else, are opened straight into those pages instead,
// which saves the copy. So bytes of a record that turns out to be damaged or forged may be in guest RAM. That
// is safe: their place was told by a record whose tag was right, nothing outside of those pages is written,
// the session fails with that record, so that its RAM is never used, and nobody is told that the pages are
// there before the tag was right. Whether a record holds page data shows only in its last byte (TLS 1.3), so
// one that does not, though its length says so, is taken back to the staging buffer; the pages' right bytes
// are still to come.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "loader/destination/byte_fifo.h"
#include "loader/session/channel.h"
#include "loader/stream/parser.h"
#include "loader/tls/record_cipher.h"
#include "loader/tls/tls_counters.h"

namespace migrx {

class TlsChannel final : public ChannelParser {
 public:
  // A handshake's bytes that wait for the control thread; then the channel parks, and the
  // peer's window closes.
  static constexpr std::size_t kHandshakeBytes = 16384;
  // A record that is not application data: an alert, a KeyUpdate. Larger ones are no such thing.
  static constexpr std::size_t kAsideBytesMax = 512;
  // What a record costs beyond its bytes, in bytes of an ordinary one: many small records must not take a
  // worker's time from its other channels.
  static constexpr uint64_t kRecordCostBytes = 256;

  // directory: gives the parser once the plaintext has said which channel it is. All must
  // outlive the channel.
  TlsChannel(Handoff& connection, ChannelDirectory& directory, uint32_t worker, const GcmKernels* kernels);
  ~TlsChannel() override;

  // ---- The channel's worker ----
  ParseResult parse(Bytes piece) noexcept override;
  [[nodiscard]] bool ready() noexcept override;
  [[nodiscard]] bool identified() const noexcept override { return inner_ != nullptr; }
  [[nodiscard]] bool may_be_multifd() const noexcept override { return may_be_multifd_; }
  [[nodiscard]] Claim claim() const noexcept override { return claim_; }
  StreamError end_of_stream() noexcept override;
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  // Of the plaintext.
  [[nodiscard]] uint64_t offset() const noexcept override { return inner_ != nullptr ? inner_->offset() : 0; }

  // ---- The control thread ----
  enum class Phase : uint8_t {
    handshaking,  // bytes for the handshake come through handshake_bytes()
    open,
    set_aside,  // record() waits for an answer: resume(), close() or fail_record()
    closed,     // the peer said close_notify
    refused,
  };
  [[nodiscard]] Phase phase() const noexcept { return phase_.load(std::memory_order_acquire); }
  [[nodiscard]] ByteFifo& handshake_bytes() noexcept { return handshake_; }
  // The handshake has used up what came so far. Until then the channel stays parked: who waits for bytes
  // would not notice that the stream begins in those that are here.
  void want_more() noexcept { wants_more_.store(true, std::memory_order_release); }
  // The handshake is done; `rest` came with its last bytes and belongs to the stream.
  void establish(const TlsKeys& keys, Bytes rest);
  void refuse() noexcept { phase_.store(Phase::refused, std::memory_order_release); }

  [[nodiscard]] Bytes record() const noexcept { return {aside_.data(), aside_bytes_}; }
  [[nodiscard]] uint64_t record_sequence() const noexcept { return aside_sequence_; }
  void resume(const TlsKeys& keys);
  void close() noexcept { phase_.store(Phase::closed, std::memory_order_release); }
  void fail_record(const std::string& text);

  [[nodiscard]] Handoff& connection() const noexcept { return connection_; }
  [[nodiscard]] const TlsCounters& counters() const noexcept { return counters_; }

 private:
  enum class State : uint8_t {
    handshaking,
    header,
    body,
    tag,
    deliver,
    waiting,
    replay,
    set_aside,
    closed,
    failed
  };
  enum class Step : uint8_t { again, need_more, parked, refused, failed };

  Step step(Bytes& piece) noexcept;
  Step on_handshake(Bytes& piece) noexcept;
  Step on_header(Bytes& piece) noexcept;
  Step on_body(Bytes& piece) noexcept;
  Step on_tag(Bytes& piece) noexcept;
  // n bytes, of which some or all are page data.
  void open_pages(const std::byte* text, std::size_t n) noexcept;
  // Of a record whose tag was right: its pages are there, or what it was is in the staging buffer.
  [[nodiscard]] bool keep_pages() noexcept;
  Step deliver() noexcept;
  Step greet() noexcept;
  Step introduce(const Introduction& introduction) noexcept;
  Step replay() noexcept;
  // What the inner parser makes of these bytes; `used` grows by those it took.
  Step feed(Bytes bytes, std::size_t& used) noexcept;
  Step on_set_aside() noexcept;
  void take_keys() noexcept;
  // Copies the record's own bytes as well, while it is small enough to be set aside.
  void keep(Bytes bytes) noexcept;
  Step fail(const char* field, const char* text) noexcept;

  Handoff& connection_;
  ChannelDirectory& directory_;
  const uint32_t worker_;
  RecordCipher cipher_;
  ChannelParser* inner_ = nullptr;  // owned by the session
  bool may_be_multifd_ = true;
  Claim claim_ = Claim::unknown;

  State state_ = State::handshaking;
  bool keys_taken_ = true;
  // The record at hand.
  std::array<std::byte, kTlsHeaderBytes + 8> header_{};
  std::size_t header_have_ = 0;
  std::size_t text_bytes_ = 0;  // of ciphertext, without the tag; from deliver on: of application data
  std::size_t text_have_ = 0;
  std::size_t page_bytes_ = 0;  // of its text, that are page data as far as its length tells; 0: none
  MutableBytes place_;          // where the next of them go
  std::array<std::byte, kTlsTagBytes> tag_{};
  std::size_t tag_have_ = 0;
  std::unique_ptr<std::byte[]> staging_;  // made by the worker, on its node
  std::size_t delivered_ = 0;             // of text_bytes_
  // What the plaintext has said, until the directory knows who it is (loader/session/channel.h).
  std::vector<std::byte> greeting_;
  std::size_t greeting_wanted_ = ChannelDirectory::kMagicBytes;
  std::size_t replayed_ = 0;  // of the greeting, to the inner parser
  Introduction answer_;       // to one that waited
  uint64_t inner_expanded_ = 0;
  uint64_t ciphertext_bytes_ = 0;  // of the whole connection: where an error was met

  // Written by one side, and read by the other after it has read phase_.
  std::atomic<Phase> phase_{Phase::handshaking};
  std::atomic<bool> wants_more_{true};
  ByteFifo handshake_;
  TlsKeys keys_;
  std::vector<std::byte> rest_;  // ciphertext that came with the handshake
  std::size_t rest_read_ = 0;    // the worker's
  std::array<std::byte, kAsideBytesMax> aside_{};
  std::size_t aside_bytes_ = 0;
  uint64_t aside_sequence_ = 0;
  std::string aside_problem_;

  TlsCounters counters_;
  StreamError error_;
};

}  // namespace migrx

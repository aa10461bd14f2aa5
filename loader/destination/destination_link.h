// One connection to the destination QEMU: the socket, and TLS on it where the hand-off is encrypted.
//
//   plain:  open, text goes through as it is
//   TLS:    shaking hands ─done─▶ open: text ─▶ records ─▶ socket
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dataplane/handoff/byte_order.h"
#include "loader/destination/link_security.h"
#include "numa/descriptor.h"

namespace migrx {

// Control thread. Nothing here blocks.
class DestinationLink {
 public:
  enum class End : uint8_t {
    none,
    closed,      // by the peer, or by an error of the socket: error()
    tls_failed,  // tls_problem()
    tls_late,    // its handshake takes longer than kHandshakeNs
  };
  // Bounds of a handshake. That of a server with a long chain of certificates has some 10 KiB.
  static constexpr uint64_t kHandshakeNs = 10'000'000'000;
  static constexpr std::size_t kHandshakeBytesMax = std::size_t{128} * 1024;

  // socket: connected and non-blocking. tls: nullptr for a plain one.
  void begin(Descriptor socket, std::unique_ptr<SecuredLink> tls, uint64_t now_ns);
  void close();
  [[nodiscard]] int fd() const noexcept { return socket_.get(); }

  // The handshake goes on, and what found no room in the socket leaves. Returns work done.
  uint32_t do_work(uint64_t now_ns);
  // Text may be sent and received.
  [[nodiscard]] bool open() const noexcept { return socket_ && open_; }
  [[nodiscard]] bool secured() const noexcept { return tls_ != nullptr; }
  // do_work() or receive() would read what the peer sends next.
  [[nodiscard]] bool reads() const noexcept;

  // open(): takes as much of the text as there is room for; 0: none, or end().
  std::size_t send(Bytes text);
  // Some of what was taken has not left yet.
  [[nodiscard]] bool sending() const noexcept { return output_sent_ < output_.size(); }
  // open(): what has come, at most `to`; 0: nothing, or end(). Also after an end of the direction that sends.
  std::size_t receive(std::span<std::byte> to);

  [[nodiscard]] End end() const noexcept { return end_; }
  // After closed: of errno; 0: the peer closed in an orderly way.
  [[nodiscard]] int error() const noexcept { return error_; }
  // After tls_failed.
  [[nodiscard]] const std::string& tls_problem() const noexcept { return tls_problem_; }

 private:
  // Text of one turn of sealing: a record or four.
  static constexpr std::size_t kTextBytesMax = std::size_t{64} * 1024;

  uint32_t shake_hands(uint64_t now_ns);
  // False: something is left.
  bool flush();
  void close_with(int error);
  void fail_tls(std::string problem);

  Descriptor socket_;
  std::unique_ptr<SecuredLink> tls_;
  bool open_ = false;
  uint64_t since_ns_ = 0;
  std::size_t handshake_bytes_ = 0;
  std::vector<std::byte> output_;  // records, or a flight of the handshake
  std::size_t output_sent_ = 0;
  std::vector<std::byte> text_;  // opened and not asked for yet
  std::size_t text_read_ = 0;
  End end_ = End::none;
  int error_ = 0;
  std::string tls_problem_;
};

}  // namespace migrx

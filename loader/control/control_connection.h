// One client of a control socket: its bytes, the requests in them, and what it has yet to be sent. Reads no
// more from a client that has not been sent its answer, and ends with one that leaves too much unread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "loader/control/control_parser.h"
#include "loader/control/control_service.h"
#include "loader/control/foreign_files.h"
#include "numa/descriptor.h"

namespace migrx {

class ControlConnection {
 public:
  static constexpr std::size_t kReadMax = 16 << 10;     // in one turn
  static constexpr std::size_t kUnsentMax = 256 << 10;  // and one line

  // socket: does not block. files: outlives it.
  ControlConnection(Descriptor socket, ControlPeer peer, ForeignFiles& files);
  ~ControlConnection();
  ControlConnection(const ControlConnection&) = delete;
  ControlConnection& operator=(const ControlConnection&) = delete;

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  [[nodiscard]] const ControlPeer& peer() const noexcept { return peer_; }

  // Takes what is there, kReadMax bytes at most. Bytes taken.
  std::size_t read();
  // The next request, when the client has taken all it was sent; it is answered by send().
  [[nodiscard]] std::optional<ControlLine> next();
  // A request waits, and next() would give it.
  [[nodiscard]] bool ready() const noexcept { return parser_.ready() && unsent() == 0 && !over_; }
  // Sends it, or what the socket takes of it, behind what was not sent yet.
  void send(const std::string& line);
  void flush();

  [[nodiscard]] bool wants_read() const noexcept {
    return !ended_ && !over_ && !parser_.ready() && unsent() == 0;
  }
  [[nodiscard]] bool wants_write() const noexcept { return unsent() > 0 && !over_; }
  // Nothing can be read or sent any more.
  [[nodiscard]] bool over() const noexcept {
    return over_ || (ended_ && !parser_.ready() && last_words_.empty() && unsent() == 0);
  }

 private:
  [[nodiscard]] std::size_t unsent() const noexcept { return out_.size() - sent_; }
  // Nothing more is read; `why` is told behind the answers to what has been read.
  void end(const std::string& why);

  Descriptor socket_;
  const ControlPeer peer_;
  ForeignFiles& files_;
  ControlParser parser_;
  std::string out_;
  std::size_t sent_ = 0;
  std::string last_words_;
  bool ended_ = false;  // nothing more is read
  bool over_ = false;
};

}  // namespace migrx

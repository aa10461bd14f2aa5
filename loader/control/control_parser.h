// What comes out of a control socket's client: bytes and descriptors in, requests out. Sans-IO. Whatever a
// client sends, a parser holds no more than one line without an end, the lines that nobody has taken, and
// the descriptors of both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loader/control/control_message.h"
#include "loader/control/control_service.h"
#include "numa/descriptor.h"

namespace migrx {

// One line: a request, or what is wrong with it, to be answered in its turn.
struct ControlLine {
  std::string command;
  nlohmann::json arguments = nlohmann::json::object();
  std::vector<Descriptor> files;
  ControlId id;
  std::optional<ControlError> error;
};

// {"execute": NAME, "arguments": {…}, "id": ANY}, the last two optional. Anything else is an error, and so is
// nesting beyond ControlParser::kDepthMax and a key that an object has twice. Pure.
[[nodiscard]] ControlLine parse_control_line(std::string_view line);

class ControlParser {
 public:
  static constexpr std::size_t kLineMax = 64 << 10;   // without its end
  static constexpr int kDepthMax = 16;                // of JSON's objects and arrays
  static constexpr std::size_t kDescriptorsMax = 16;  // of one request

  // `files` came with `bytes`, as one recvmsg() gave them. They belong to the request in which `bytes` end:
  // the kernel may put bytes of earlier sendmsg() calls in front, and never any behind. Empty: go on.
  // Otherwise the conversation is over, since nobody knows where the next request begins; and why. What was
  // complete before can still be taken. Descriptors that are refused are closed with `files`.
  [[nodiscard]] std::string feed(std::string_view bytes, std::vector<Descriptor> files);
  // The next complete line that is not blank.
  [[nodiscard]] std::optional<ControlLine> next();
  // A complete line waits.
  [[nodiscard]] bool ready() const noexcept { return complete_ > 0; }

 private:
  std::string held_;
  std::size_t taken_ = 0;                              // bytes of held_ that next() has gone through
  uint64_t begin_ = 0;                                 // place in the stream of held_'s first byte
  std::size_t open_ = 0;                               // bytes after the last end of line
  std::size_t complete_ = 0;                           // ends of line in held_
  std::deque<std::pair<uint64_t, Descriptor>> files_;  // by the place of the last byte they came with
};

}  // namespace migrx

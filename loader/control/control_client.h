// The other end of a control socket: what `migrx list`, `migrx cancel` and `migrx receive --via` speak
// through. One thread; each call waits no longer than it says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "loader/control/control_message.h"
#include "loader/control/control_service.h"
#include "numa/descriptor.h"

namespace migrx {

struct ControlEvent {
  std::string name;
  nlohmann::json data;
};
struct ControlReply {
  uint64_t number = 0;  // as send() returned it
  ControlAnswer answer;
};

class ControlClient {
 public:
  static constexpr int kAnswerMs = 10'000;            // that a daemon takes at most
  static constexpr std::size_t kLineMax = 64U << 20;  // a report of many channels is some hundred KiB

  // Connects and reads the greeting. nullptr: `problem` says what to do.
  [[nodiscard]] static std::unique_ptr<ControlClient> connect(const std::string& path, std::string& problem);
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // Sends a request, with descriptors that stay the caller's. Returns its number, by which the answer is
  // known; 0: the daemon is gone, or takes nothing.
  [[nodiscard]] uint64_t send(const std::string& command, const nlohmann::json& arguments,
                              const std::vector<int>& files = {});
  // The next answer or event; nothing: none came within `timeout_ms`, wake_fd (-1: none; not read from) was
  // readable before, or the daemon is gone.
  [[nodiscard]] std::variant<std::monostate, ControlReply, ControlEvent> next(int timeout_ms,
                                                                              int wake_fd = -1);
  // send(), and next() until the answer is there; events on the way are dropped. An error in the daemon's
  // place when it is gone or does not answer.
  [[nodiscard]] ControlAnswer call(const std::string& command, const nlohmann::json& arguments,
                                   const std::vector<int>& files = {});

  // The daemon has closed the connection; what it sent before can still be had by next().
  [[nodiscard]] bool gone() const noexcept { return gone_; }
  [[nodiscard]] const std::string& version() const noexcept { return version_; }

 private:
  explicit ControlClient(Descriptor socket) : socket_(std::move(socket)) {}
  // False: nothing came in time.
  bool wait(int timeout_ms, int wake_fd);
  [[nodiscard]] std::optional<nlohmann::json> take_line();
  [[nodiscard]] std::string greet();

  Descriptor socket_;
  std::string held_;
  std::size_t scanned_ = 0;  // no end of line before it
  std::string version_;
  uint64_t last_number_ = 0;
  bool gone_ = false;
};

}  // namespace migrx

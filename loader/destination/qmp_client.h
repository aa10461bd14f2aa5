// One conversation with a QEMU over its QMP socket: commands are answered in turn, within a bound of time.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "loader/destination/qmp_message.h"
#include "loader/destination/socket_address.h"

namespace migrx {

// What a caller needs of it; tests play a QEMU.
class QmpCommands {
 public:
  virtual ~QmpCommands() = default;
  // arguments: a JSON object, or empty. Empty: `result` is the value of "return" as JSON. Otherwise what QEMU
  // or the connection says, beginning with the command's name.
  [[nodiscard]] virtual std::string command(const std::string& name, const std::string& arguments,
                                            std::string& result) = 0;
  // "10.0.2"
  [[nodiscard]] virtual const std::string& version() const noexcept = 0;
  // Whether it was started with -S; nullopt: that cannot be seen from here.
  [[nodiscard]] virtual std::optional<bool> started_stopped() const { return std::nullopt; }
  // The process that listens; nullopt: it cannot be seen from here.
  [[nodiscard]] virtual std::optional<pid_t> process() const { return std::nullopt; }
};

// command_line: of a process as /proc/PID/cmdline has it, words ended by zeros. nullopt: it is no QEMU's.
[[nodiscard]] std::optional<bool> qemu_starts_stopped(std::string_view command_line);

// Control thread, before the migration: its calls block, each for at most kTimeoutMs, and no longer than
// until the wake descriptor is readable.
class QmpClient final : public QmpCommands {
 public:
  // Called again and again while QEMU keeps silent, with the seconds that this has taken.
  using Waits = std::function<void(double)>;
  // Connects to the UNIX socket and negotiates. nullptr: `problem` says what to do. wake_fd outlives the
  // client and is not read from; -1: nobody wakes it.
  [[nodiscard]] static std::unique_ptr<QmpClient> connect(const UnixSocket& socket, std::string& problem,
                                                          int wake_fd = -1, Waits waits = {});
  ~QmpClient() override;
  QmpClient(const QmpClient&) = delete;
  QmpClient& operator=(const QmpClient&) = delete;

  [[nodiscard]] std::string command(const std::string& name, const std::string& arguments,
                                    std::string& result) override;
  [[nodiscard]] const std::string& version() const noexcept override { return version_; }
  // From the command line of the process that listens (SO_PEERCRED, /proc/PID/cmdline): QMP does not tell.
  [[nodiscard]] std::optional<bool> started_stopped() const override;
  // SO_PEERCRED.
  [[nodiscard]] std::optional<pid_t> process() const override;

 private:
  // QEMU answers when its main loop comes round; a machine that is just starting takes some time.
  static constexpr int kTimeoutMs = 10'000;

  QmpClient(int fd, int wake_fd, Waits waits) : fd_(fd), wake_fd_(wake_fd), waits_(std::move(waits)) {}
  // Empty: one of `events` is there.
  [[nodiscard]] std::string wait_for(short events, int64_t deadline_ms, const char* late) const;
  // Greetings are counted, events dropped. Empty: `out` is an answer.
  std::string read_answer(QmpMessage& out);
  std::string read_message(int64_t deadline_ms, QmpMessage& out);
  std::string send(const std::string& line);

  const int fd_;
  const int wake_fd_;
  const Waits waits_;
  QmpLines lines_;
  std::string version_;
  uint32_t greetings_ = 0;
};

}  // namespace migrx

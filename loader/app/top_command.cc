#include "loader/app/top_command.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <ctime>
#include <memory>

#include "loader/app/session_commands.h"
#include "loader/app/signals.h"
#include "loader/app/top_screen.h"
#include "loader/control/control_client.h"
#include "loader/stream/printable.h"
#include "numa/clock.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

// Of a screen that goes to a file or a pipe.
constexpr unsigned kPlainWidth = 200;
constexpr unsigned kPlainHeight = 1000;

struct TopOptions {
  std::string socket = kControlSocketPath;
  double interval_s = 1;
  uint64_t count = 0;  // of screens; 0: until q
};

double now_s() {
  return static_cast<double>(monotonic_ns()) * 1e-9;
}

std::string time_of_day() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  std::array<char, 16> text{};
  if (::localtime_r(&now, &parts) == nullptr ||
      std::strftime(text.data(), text.size(), "%H:%M:%S", &parts) == 0)
    return "-";
  return text.data();
}

// Where screens are drawn. On a terminal each takes the last one's place, and keys come at once; the
// terminal's modes are given back at the end.
class Screen {
 public:
  Screen()
      : terminal_(::isatty(STDOUT_FILENO) == 1),
        keys_(terminal_ && ::tcgetattr(STDIN_FILENO, &modes_) == 0) {}
  ~Screen() {
    if (keys_) (void)::tcsetattr(STDIN_FILENO, TCSANOW, &modes_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  void draw(const TopScreen& screen) {
    take_keys();
    winsize size{};
    const bool known =
        terminal_ && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 1;
    std::string text = terminal_ ? "\x1b[H\x1b[J" : "";
    // A line in the last column or row would make some terminals scroll.
    for (const std::string& line :
         screen.lines(known ? size.ws_col - 1U : kPlainWidth, known ? size.ws_row - 1U : kPlainHeight))
      text += line + "\n";
    if (!terminal_) text += "\n";
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
  }
  // -1: no keys are read.
  [[nodiscard]] int keys() const noexcept { return keys_ ? STDIN_FILENO : -1; }

 private:
  // Again each time: a shell takes the modes back while the job is stopped.
  void take_keys() {
    if (!keys_) return;
    termios modes = modes_;
    modes.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    (void)::tcsetattr(STDIN_FILENO, TCSANOW, &modes);
  }

  const bool terminal_;
  termios modes_{};  // as they were found
  const bool keys_;
};

// Until the time is there, q is pressed, a signal comes or the daemon is gone. False: not any more.
bool wait_until(double due_s, ControlClient& client, const SignalWatch& signals, const Screen& screen,
                TopScreen& top) {
  for (;;) {
    const double left_s = due_s - now_s();
    if (signals.pending()) return false;
    if (left_s <= 0) return true;
    pollfd key{screen.keys(), POLLIN, 0};
    if (key.fd >= 0 && ::poll(&key, 1, 0) > 0) {
      char pressed = 0;
      if (::read(key.fd, &pressed, 1) != 1 || pressed == 'q' || pressed == 'Q') return false;
      continue;
    }
    // Keys and signals are looked at ten times a second.
    constexpr double kLookS = 0.1;
    const auto wait_ms = static_cast<int>(std::min(left_s, kLookS) * 1e3) + 1;
    const auto message = client.next(wait_ms, signals.fd());
    if (const auto* const event = std::get_if<ControlEvent>(&message))
      top.take_event(event->name, event->data, time_of_day());
    if (client.gone() && std::holds_alternative<std::monostate>(message))
      return true;  // the next question says so
  }
}

int watch(const TopOptions& options) {
  const auto complain = [](const std::string& problem) {
    std::fprintf(stderr, "migrx: %s\n", printable(problem, /*lines=*/true).c_str());
  };
  const SignalWatch signals;
  std::string problem;
  const std::unique_ptr<ControlClient> client = ControlClient::connect(options.socket, problem);
  if (client == nullptr) {
    complain(problem);
    return 2;
  }
  TopScreen top;
  Screen screen;
  for (uint64_t shown = 0;;) {
    const double begun_s = now_s();
    for (const char* const question : {"query-host", "query-sessions"}) {
      const ControlAnswer answer = client->call(question, Json::object());
      if (const auto* const error = std::get_if<ControlError>(&answer)) {
        complain(error->sentence);
        return 1;
      }
      const bool host = question == std::string_view("query-host");
      host ? top.take_host(std::get<Json>(answer), now_s())
           : top.take_sessions(std::get<Json>(answer), now_s());
    }
    screen.draw(top);
    if (++shown == options.count) return 0;
    if (!wait_until(begun_s + options.interval_s, *client, signals, screen, top)) return 0;
  }
}

}  // namespace

void add_top_command(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* const command =
      app.add_subcommand("top", "watch what a daemon receives: migrations, cores, ports, events; q ends it");
  add_socket_option(*command, options->socket);
  command->add_option("--interval", options->interval_s, "seconds between two looks")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  command->add_option("--count", options->count, "end after so many looks (default: go on)");
  command->callback([options, &exit_status] { exit_status = watch(*options); });
}

}  // namespace migrx

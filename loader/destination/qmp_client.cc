#include "loader/destination/qmp_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "numa/clock.h"
#include "numa/process_user.h"

namespace migrx {
namespace {

constexpr int kTellMs = 500;

int64_t now_ms() {
  return static_cast<int64_t>(monotonic_ns() / 1'000'000);
}

}  // namespace

std::unique_ptr<QmpClient> QmpClient::connect(const UnixSocket& socket, std::string& problem, int wake_fd,
                                              Waits waits) {
  const std::string& path = socket.path;
  const std::string& reach = socket.reach();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (reach.size() >= sizeof address.sun_path) {
    problem = "--qmp: " + path + ": longer than a UNIX socket's name may be";
    return nullptr;
  }
  std::memcpy(address.sun_path, reach.c_str(), reach.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    problem = "--qmp: " + path + ": " + std::strerror(errno) +
              ": start the destination with -qmp unix:" + path + ",server=on,wait=off";
    if (errno == EAGAIN)
      problem = "--qmp: " + path + ": somebody else is talking to this QEMU; give it a socket of migrx's own";
    if (fd >= 0) ::close(fd);
    return nullptr;
  }
  std::unique_ptr<QmpClient> client(new QmpClient(fd, wake_fd, std::move(waits)));
  if (socket.access && !socket.access->is_of_user(fd)) {
    problem = "--qmp: " + path + ": another user listens there: only root may name it";
    return nullptr;
  }
  QmpMessage greeting;
  std::string error = client->read_message(now_ms() + kTimeoutMs, greeting);
  if (error.empty() && greeting.kind != QmpKind::greeting) error = "does not greet as a QMP server does";
  std::string ignored;
  if (error.empty()) error = client->command("qmp_capabilities", "", ignored);
  if (!error.empty()) {
    problem = "--qmp: " + path + ": " + error;
    if (error.find("did not answer") != std::string::npos)
      problem +=
          ": a QMP socket serves one client at a time; end the one that is connected, or give migrx a socket "
          "of "
          "its own (a second -qmp)";
    return nullptr;
  }
  return client;
}

std::optional<bool> qemu_starts_stopped(std::string_view command_line) {
  const std::string_view program = command_line.substr(0, command_line.find('\0'));
  if (program.find("qemu") == std::string_view::npos) return std::nullopt;
  while (!command_line.empty()) {
    const std::size_t end = command_line.find('\0');
    const std::string_view word = command_line.substr(0, end);
    if (word == "-S" || word == "--S") return true;
    command_line.remove_prefix(end == std::string_view::npos ? command_line.size() : end + 1);
  }
  return false;
}

std::optional<pid_t> QmpClient::process() const {
  const std::optional<ucred> peer = peer_credentials(fd_);
  if (!peer || peer->pid <= 0) return std::nullopt;
  return peer->pid;
}

std::optional<bool> QmpClient::started_stopped() const {
  const std::optional<pid_t> peer = process();
  if (!peer) return std::nullopt;
  std::ifstream file("/proc/" + std::to_string(*peer) + "/cmdline", std::ios::binary);
  if (!file) return std::nullopt;
  const std::string command_line{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return qemu_starts_stopped(command_line);
}

QmpClient::~QmpClient() {
  ::close(fd_);
}

std::string QmpClient::command(const std::string& name, const std::string& arguments, std::string& result) {
  std::string line = "{\"execute\": " + qmp_quote(name);
  if (!arguments.empty()) line += ", \"arguments\": " + arguments;
  line += "}\n";
  // A QEMU that is just starting may greet again (its socket opens before its monitor does); every greeting
  // begins the negotiation anew, and other commands are refused until it is over.
  for (int attempt = 0; attempt < 3; ++attempt) {
    const uint32_t greetings = greetings_;
    if (std::string error = send(line); !error.empty()) return name + ": " + error;
    QmpMessage answer;
    if (std::string error = read_answer(answer); !error.empty()) return name + ": " + error;
    if (answer.kind == QmpKind::result) {
      result = std::move(answer.text);
      return {};
    }
    if (greetings == greetings_ || name == "qmp_capabilities") return name + ": " + answer.text;
    std::string ignored;
    if (std::string error = command("qmp_capabilities", "", ignored); !error.empty()) return error;
  }
  return name + ": QEMU begins its negotiation again and again";
}

std::string QmpClient::send(const std::string& line) {
  const int64_t deadline = now_ms() + kTimeoutMs;
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t n = ::send(fd_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<std::size_t>(n);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return std::strerror(errno);
    if (std::string error = wait_for(POLLOUT, deadline, "QEMU does not read"); !error.empty()) return error;
  }
  return {};
}

std::string QmpClient::wait_for(short events, int64_t deadline_ms, const char* late) const {
  for (;;) {
    std::array<pollfd, 2> descriptors{
        {{fd_, events, 0}, {wake_fd_, POLLIN, 0}}};  // poll() skips negative ones
    const int64_t left = deadline_ms - now_ms();
    if (left <= 0) return std::string(late) + " within " + std::to_string(kTimeoutMs / 1000) + " s";
    const int ready =
        ::poll(descriptors.data(), descriptors.size(), static_cast<int>(std::min<int64_t>(left, kTellMs)));
    if (ready < 0 && errno != EINTR) return std::strerror(errno);
    if (ready == 0 && waits_) waits_(static_cast<double>(kTimeoutMs - (deadline_ms - now_ms())) * 1e-3);
    if (ready <= 0) continue;
    if (descriptors[1].revents != 0) return "ended by a signal before QEMU had answered";
    return {};
  }
}

std::string QmpClient::read_answer(QmpMessage& out) {
  const int64_t deadline = now_ms() + kTimeoutMs;
  for (;;) {
    if (std::string error = read_message(deadline, out); !error.empty()) return error;
    if (out.kind == QmpKind::result || out.kind == QmpKind::error) return {};
  }
}

std::string QmpClient::read_message(int64_t deadline_ms, QmpMessage& out) {
  for (;;) {
    if (const auto line = lines_.next()) {
      const auto message = parse_qmp_message(*line);
      if (!message) return "the answer is no QMP: " + line->substr(0, 80);
      out = *message;
      if (out.kind == QmpKind::greeting) {
        version_ = out.text;
        ++greetings_;
      }
      return {};
    }
    if (std::string error = wait_for(POLLIN, deadline_ms, "QEMU did not answer"); !error.empty())
      return error;
    std::array<char, 16384> bytes;
    const ssize_t n = ::recv(fd_, bytes.data(), bytes.size(), 0);
    if (n == 0) return "QEMU closed the connection";
    if (n < 0) {
      if (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK) continue;
      return std::strerror(errno);
    }
    if (!lines_.feed(std::string_view(bytes.data(), static_cast<std::size_t>(n))))
      return "an answer is longer than " + std::to_string(QmpLines::kLineMax) + " bytes";
  }
}

}  // namespace migrx

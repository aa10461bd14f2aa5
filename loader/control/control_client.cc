#include "loader/control/control_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "numa/clock.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

constexpr int kLastWordsMs = 500;

int64_t now_ms() {
  return static_cast<int64_t>(monotonic_ns() / 1'000'000);
}

std::string text_in(const Json& object, const char* member) {
  const auto found = object.is_object() ? object.find(member) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string{};
}

ControlError gone_error() {
  return {control_class::kGeneric, "the daemon has closed the connection"};
}

}  // namespace

std::unique_ptr<ControlClient> ControlClient::connect(const std::string& path, std::string& problem) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    problem = path + ": a socket's path is shorter than 108 bytes";
    return nullptr;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    problem = path + ": " + std::strerror(error);
    if (error == ENOENT || error == ECONNREFUSED)
      problem += ": no daemon listens there: start it, or name its socket with --via";
    if (error == EACCES) problem += ": only root and the members of the socket's group may connect";
    return nullptr;
  }
  std::unique_ptr<ControlClient> client(new ControlClient(std::move(socket)));
  if (problem = client->greet(); problem.empty()) return client;
  problem = path + ": " + problem;
  return nullptr;
}

std::string ControlClient::greet() {
  const int64_t until = now_ms() + kAnswerMs;
  std::optional<Json> line;
  while (!(line = take_line()) && !gone_ && now_ms() < until)
    wait(static_cast<int>(std::max<int64_t>(0, until - now_ms())), -1);
  const auto greeting = line && line->is_object() ? line->find("migrx") : Json::iterator{};
  if (!line || !line->is_object() || greeting == line->end())
    return gone_ ? "the daemon closed the connection before it greeted" : "no daemon of migrx greets there";
  const auto protocol = greeting->is_object() ? greeting->find("protocol") : greeting->end();
  if (protocol == greeting->end() || *protocol != kControlProtocol)
    return "the daemon speaks another protocol than this program: use one version of both";
  version_ = text_in(*greeting, "version");
  return {};
}

uint64_t ControlClient::send(const std::string& command, const Json& arguments,
                             const std::vector<int>& files) {
  const uint64_t number = ++last_number_;
  const std::string line = Json{{"execute", command}, {"arguments", arguments}, {"id", number}}.dump(
                               -1, ' ', false, Json::error_handler_t::replace) +
                           "\n";
  std::vector<char> control(CMSG_SPACE(sizeof(int) * std::max<std::size_t>(1, files.size())));
  for (std::size_t sent = 0; sent < line.size();) {
    iovec part{const_cast<char*>(line.data()) + sent, line.size() - sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (sent == 0 && !files.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(sizeof(int) * files.size());
      cmsghdr* const header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int) * files.size());
      std::memcpy(CMSG_DATA(header), files.data(), sizeof(int) * files.size());
    }
    const ssize_t n = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      sent += static_cast<std::size_t>(n);
      continue;
    }
    pollfd room{socket_.get(), POLLOUT, 0};
    if (errno == EINTR || ((errno == EAGAIN || errno == EWOULDBLOCK) && ::poll(&room, 1, kAnswerMs) > 0))
      continue;
    return 0;
  }
  return number;
}

bool ControlClient::wait(int timeout_ms, int wake_fd) {
  std::array<pollfd, 2> descriptors{{{socket_.get(), POLLIN, 0}, {wake_fd, POLLIN, 0}}};
  if (::poll(descriptors.data(), descriptors.size(), timeout_ms) <= 0 || descriptors[0].revents == 0)
    return false;
  std::array<char, 65536> bytes;
  const ssize_t n = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (n > 0) held_.append(bytes.data(), static_cast<std::size_t>(n));
  gone_ = gone_ || n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) ||
          held_.size() > kLineMax;
  return true;
}

std::optional<Json> ControlClient::take_line() {
  const std::size_t end = held_.find('\n', scanned_);
  if (end == std::string::npos) {
    scanned_ = held_.size();
    return std::nullopt;
  }
  Json message = Json::parse(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(end), nullptr,
                             /*allow_exceptions=*/false);
  held_.erase(0, end + 1);
  scanned_ = 0;
  return message;
}

std::variant<std::monostate, ControlReply, ControlEvent> ControlClient::next(int timeout_ms, int wake_fd) {
  const int64_t until = now_ms() + timeout_ms;
  for (;;) {
    while (std::optional<Json> line = take_line()) {
      if (!line->is_object()) continue;
      if (const std::string name = text_in(*line, "event"); !name.empty())
        return ControlEvent{name, line->value("data", Json::object())};
      ControlReply reply;
      if (const auto id = line->find("id"); id != line->end() && id->is_number_unsigned())
        reply.number = id->get<uint64_t>();
      if (const auto error = line->find("error"); error != line->end()) {
        reply.answer = ControlError{text_in(*error, "class"), text_in(*error, "desc")};
        return reply;
      }
      const auto value = line->find("return");
      if (value == line->end()) continue;
      reply.answer = std::move(*value);
      return reply;
    }
    const int64_t left = until - now_ms();
    if (gone_ || left < 0 || !wait(static_cast<int>(left), wake_fd)) return std::monostate{};
  }
}

ControlAnswer ControlClient::call(const std::string& command, const Json& arguments,
                                  const std::vector<int>& files) {
  const uint64_t number = send(command, arguments, files);
  // A request that could not be sent may have an answer all the same: why the daemon closes the connection.
  const int64_t until = now_ms() + (number == 0 ? kLastWordsMs : kAnswerMs);
  while (!gone_ && now_ms() < until) {
    auto message = next(static_cast<int>(until - now_ms()));
    // An error without a number ends the conversation, and says why.
    if (auto* const reply = std::get_if<ControlReply>(&message);
        reply != nullptr && (reply->number == number || reply->number == 0))
      return std::move(reply->answer);
  }
  if (gone_ || number == 0) return gone_error();
  return ControlError{control_class::kGeneric, "the daemon does not answer"};
}

}  // namespace migrx

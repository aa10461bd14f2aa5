#include "loader/control/control_socket.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "loader/control/control_message.h"
#include "numa/clock.h"

namespace migrx {
namespace {

// Of epoll's data; clients have higher ones.
constexpr uint64_t kListener = 0;
constexpr uint64_t kMore = 1;
constexpr uint64_t kRest_ns = 1'000'000'000;

uint64_t unix_us() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                   std::chrono::system_clock::now().time_since_epoch())
                                   .count());
}

bool watch(int epoll, int operation, int fd, uint32_t events, uint64_t number) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = number;
  return ::epoll_ctl(epoll, operation, fd, &event) == 0;
}

}  // namespace

ControlSocket::ControlSocket(const ControlSocketSettings& settings, ControlService& service)
    : settings_(settings),
      service_(service),
      listener_(settings.path, settings.group),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      more_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      last_number_(kMore),
      served_last_(kMore) {
  if (!epoll_ || !more_ || !watch(epoll_.get(), EPOLL_CTL_ADD, listener_.fd(), EPOLLIN, kListener) ||
      !watch(epoll_.get(), EPOLL_CTL_ADD, more_.get(), EPOLLIN, kMore))
    throw std::runtime_error("control socket " + settings.path + ": " + std::strerror(errno));
}

ControlSocket::~ControlSocket() = default;

uint32_t ControlSocket::do_work() {
  if (listener_rests_until_ns_ != 0 && monotonic_ns() >= listener_rests_until_ns_) watch_listener(true);
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  uint32_t work = 0;
  for (int i = 0; i < count; ++i) {
    const uint64_t number = events[static_cast<std::size_t>(i)].data.u64;  // a copy: epoll_event is packed
    if (number == kListener) {
      work += accept_some();
    } else if (number == kMore) {
      uint64_t ignored = 0;
      [[maybe_unused]] const ssize_t n = ::read(more_.get(), &ignored, sizeof ignored);
    } else if (const auto found = clients_.find(number); found != clients_.end()) {
      ControlConnection& connection = found->second->connection;
      connection.flush();
      if (connection.wants_read()) (void)connection.read();
      ++work;
    }
  }
  work += execute_some();
  settle();
  return work;
}

uint32_t ControlSocket::accept_some() {
  uint32_t accepted = 0;
  while (accepted < kAcceptsPerTurn) {
    Descriptor socket(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) {
      ++accepted;
      admit(std::move(socket));
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    // No descriptor or no memory is left. The listener would stay readable, and the thread without rest.
    if (errno != EAGAIN && errno != EWOULDBLOCK) watch_listener(false);
    break;
  }
  return accepted;
}

void ControlSocket::watch_listener(bool on) {
  listener_rests_until_ns_ = on ? 0 : monotonic_ns() + kRest_ns;
  (void)watch(epoll_.get(), EPOLL_CTL_MOD, listener_.fd(), on ? uint32_t{EPOLLIN} : 0U, kListener);
}

std::string ControlSocket::refusal(const ControlPeer& peer) const {
  if (clients_.size() >= settings_.clients_max)
    return std::to_string(clients_.size()) +
           " clients are connected, and no more are taken: end some of them";
  if (peer.root()) return {};
  if (files_.overrun())
    return "descriptors that clients sent cannot be closed, so only root is served: see who sent them";
  std::size_t others = 0;
  std::size_t same = 0;
  for (const auto& [number, client] : clients_) {
    others += client->connection.peer().root() ? 0U : 1U;
    same += client->connection.peer().uid == peer.uid ? 1U : 0U;
  }
  const std::size_t room = settings_.clients_max - std::min(settings_.clients_max, settings_.clients_of_root);
  if (others >= room)
    return std::to_string(others) +
           " clients are connected, and the last places are root's: end some of them";
  // One user leaves room for another.
  if (same >= room - room / 4)
    return "this user has " + std::to_string(same) + " clients connected, and gets no more: end some of them";
  return {};
}

void ControlSocket::admit(Descriptor socket) {
  std::optional<ControlPeer> peer = peer_of(socket.get());
  if (!peer) return;  // gone, or nobody can say who it is
  const std::string refused = refusal(*peer);
  auto client = std::make_unique<Client>(std::move(socket), std::move(*peer), files_);
  client->connection.send(greeting_line(settings_.version));
  if (!refused.empty()) {
    client->connection.send(error_line({control_class::kNoRoom, refused}, std::nullopt));
    return;  // a new socket's buffer takes both lines
  }
  const uint64_t number = last_number_ + 1;
  if (!watch(epoll_.get(), EPOLL_CTL_ADD, client->connection.fd(), EPOLLIN, number)) return;
  client->interest = EPOLLIN;
  last_number_ = number;
  clients_.emplace(number, std::move(client));
}

// One request of each client, and again, until all are answered or the turn is over; the next turn begins
// behind the client that was served last.
uint32_t ControlSocket::execute_some() {
  uint32_t executed = 0;
  for (bool found = true; found && executed < kRequestsPerTurn;) {
    found = false;
    auto at = clients_.upper_bound(served_last_);
    for (std::size_t i = 0; i < clients_.size() && executed < kRequestsPerTurn; ++i, ++at) {
      if (at == clients_.end()) at = clients_.begin();
      std::optional<ControlLine> line = at->second->connection.next();
      if (!line) continue;
      served_last_ = at->first;
      execute(at->second->connection, std::move(*line));
      found = true;
      ++executed;
    }
  }
  return executed;
}

void ControlSocket::execute(ControlConnection& connection, ControlLine line) {
  const ControlId id = line.id;
  connection.send(answer_line(answer(connection.peer(), line), id));
}

ControlAnswer ControlSocket::answer(const ControlPeer& peer, ControlLine& line) {
  if (line.error) return std::move(*line.error);
  // QMP's clients begin with it.
  if (line.command == "qmp_capabilities") return nlohmann::json::object();
  ControlRequest request{std::move(line.command), std::move(line.arguments), std::move(line.files), peer};
  try {
    return service_.execute(request);
  } catch (const std::exception& problem) {
    return ControlError{control_class::kGeneric, problem.what()};
  }
}

// What each client is watched for from now on; those that are through go.
void ControlSocket::settle() {
  bool more = false;
  for (auto at = clients_.begin(); at != clients_.end();) {
    Client& client = *at->second;
    if (client.connection.over()) {
      at = clients_.erase(at);
      continue;
    }
    more = more || client.connection.ready();
    const uint32_t interest = (client.connection.wants_read() ? uint32_t{EPOLLIN} : 0U) |
                              (client.connection.wants_write() ? uint32_t{EPOLLOUT} : 0U);
    if (interest != client.interest &&
        watch(epoll_.get(), EPOLL_CTL_MOD, client.connection.fd(), interest, at->first))
      client.interest = interest;
    ++at;
  }
  if (!more) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(more_.get(), &one, sizeof one);
}

void ControlSocket::event(std::string_view name, const nlohmann::json& data) {
  const std::string line = event_line(name, data, unix_us());
  for (const auto& [number, client] : clients_) client->connection.send(line);
  // A client with something unsent is watched for room from the next turn on.
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(more_.get(), &one, sizeof one);
}

}  // namespace migrx

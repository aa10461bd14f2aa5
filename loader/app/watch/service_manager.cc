#include "loader/app/watch/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "loader/stream/printable.h"

namespace migrx {
namespace {

constexpr std::size_t kStatusMax = 400;

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::optional<uint64_t> number(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return {};
  return value;
}

}  // namespace

ServiceEnvironment service_environment() {
  return {variable("NOTIFY_SOCKET"), variable("WATCHDOG_USEC"), variable("WATCHDOG_PID")};
}

ServiceManager::ServiceManager(const ServiceEnvironment& environment, pid_t main_pid) : main_pid_(main_pid) {
  if (environment.notify_socket.empty()) return;
  address_ = environment.notify_socket;
  if ((address_[0] != '/' && address_[0] != '@') || address_.size() < 2 ||
      address_.size() >= sizeof(sockaddr_un::sun_path)) {
    warning_ = "NOTIFY_SOCKET=" + environment.notify_socket +
               " is no path of a UNIX socket: the service manager is not told when migrx is ready";
    return;
  }
  if (address_[0] == '@') address_[0] = '\0';
  socket_ = Descriptor(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // Of another process of the unit it is not ours to answer. Between 10 ms and a day: what else it may say is
  // a mistake, and seconds are kept in a double.
  const std::optional<uint64_t> pid = number(environment.watchdog_pid);
  const std::optional<uint64_t> usec = number(environment.watchdog_usec);
  if (!environment.watchdog_pid.empty() && (!pid || *pid != static_cast<uint64_t>(main_pid_))) return;
  if (usec && *usec >= 10'000 && *usec <= 86'400'000'000) watchdog_s_ = static_cast<double>(*usec) * 0.5e-6;
}

bool ServiceManager::send(const std::string& message) {
  if (!present()) return true;
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, address_.data(), address_.size());
  const auto to_bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size() +
                                               (address_[0] == '\0' ? 0 : 1));
  iovec part{const_cast<char*>(message.data()), message.size()};
  msghdr header{};
  header.msg_name = &to;
  header.msg_namelen = to_bytes;
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))] = {};
  if (as_main_ && main_pid_ != ::getpid()) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* const first = CMSG_FIRSTHDR(&header);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_CREDENTIALS;
    first->cmsg_len = CMSG_LEN(sizeof(ucred));
    const ucred who{main_pid_, ::getuid(), ::getgid()};
    std::memcpy(CMSG_DATA(first), &who, sizeof who);
    if (::sendmsg(socket_.get(), &header, MSG_NOSIGNAL) >= 0) return true;
    if (errno != EPERM && errno != ESRCH) return errno != EAGAIN && errno != ENOBUFS;
    as_main_ = false;  // not root: NotifyAccess=all is needed
    header.msg_control = nullptr;
    header.msg_controllen = 0;
  }
  return ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL) >= 0 || (errno != EAGAIN && errno != ENOBUFS);
}

void ServiceManager::ready(double now_s) {
  ready_ = true;
  alive_s_ = now_s;
  look(now_s, {});
}

void ServiceManager::status(std::string text, double now_s) {
  text = printable(text);
  if (text.size() > kStatusMax) text.resize(kStatusMax);
  if (text == status_) return;
  status_ = std::move(text);
  status_due_ = true;
  if (ready_) return;
  status_s_ = -1e9;  // steps of the start are few, and nobody looks in between
  look(now_s, {});
}

void ServiceManager::stopping(const std::string& text) {
  (void)send("STOPPING=1\nSTATUS=" + printable(text).substr(0, kStatusMax));
}

void ServiceManager::look(double now_s, const std::vector<uint64_t>& turns) {
  constexpr double kStatusS = 1;
  if (!present()) return;
  if (ready_ && !ready_said_) ready_said_ = send("READY=1");
  if (status_due_ && now_s - status_s_ >= kStatusS) {
    status_s_ = now_s;
    status_due_ = !send("STATUS=" + status_);
  }
  if (watchdog_s_ <= 0 || !ready_said_ || now_s - alive_s_ < watchdog_s_) return;
  bool alive = true;
  for (std::size_t i = 0; i < turns.size() && i < turns_.size(); ++i) alive = alive && turns[i] != turns_[i];
  turns_ = turns;
  alive_s_ = now_s;
  if (alive) (void)send("WATCHDOG=1");
}

}  // namespace migrx

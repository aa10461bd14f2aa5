#include "loader/destination/socket_diag.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

#include "loader/destination/network_namespace.h"
#include "loader/destination/proc_entries.h"

namespace migrx {
namespace {

constexpr int kAnswerMs = 2000;  // the kernel answers at once
constexpr std::size_t kDatagramMax = 64 << 10;

// A header at the front of `bytes`, copied: netlink aligns to 4 bytes only.
template <class T>
bool read_as(Bytes bytes, T& out) {
  if (bytes.size() < sizeof out) return false;
  std::memcpy(&out, bytes.data(), sizeof out);
  return true;
}

// Calls `each` with the payload of every answer of the wanted type.
bool each_answer(Bytes datagram, bool& done, const std::function<bool(Bytes)>& each) {
  while (!datagram.empty()) {
    nlmsghdr header{};
    if (!read_as(datagram, header) || header.nlmsg_len < sizeof header || header.nlmsg_len > datagram.size())
      return false;
    if (header.nlmsg_type == NLMSG_DONE) {
      done = true;
      return true;
    }
    if (header.nlmsg_type == NLMSG_ERROR) return false;
    if (header.nlmsg_type == SOCK_DIAG_BY_FAMILY &&
        !each(datagram.first(header.nlmsg_len).subspan(sizeof header)))
      return false;
    datagram = datagram.subspan(std::min<std::size_t>(NLMSG_ALIGN(header.nlmsg_len), datagram.size()));
  }
  return true;
}

bool all_zero(const uint32_t* words, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i)
    if (words[i] != 0) return false;
  return true;
}

// Sends one request for a dump and hands every datagram of the answer to `take`, which says when it is over.
bool dump(int network_namespace, const void* request, std::size_t bytes,
          const std::function<bool(Bytes, bool&)>& take, std::string& problem) {
  const Descriptor fd = socket_in(network_namespace, AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG);
  const auto fail = [&problem](const char* what) {
    problem = std::string("sock_diag: ") + what + ": " + std::strerror(errno);
    return false;
  };
  if (!fd) return fail("no socket");
  if (::send(fd.get(), request, bytes, 0) != static_cast<ssize_t>(bytes)) return fail("cannot ask");
  std::vector<std::byte> buffer(kDatagramMax);
  for (bool done = false; !done;) {
    pollfd waits{fd.get(), POLLIN, 0};
    if (::poll(&waits, 1, kAnswerMs) <= 0) {
      errno = ETIMEDOUT;
      return fail("no answer");
    }
    const ssize_t n = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return fail("no answer");
    if (!take({buffer.data(), static_cast<std::size_t>(n)}, done)) {
      problem = "sock_diag: an answer of another form: is the kernel built without inet_diag and unix_diag?";
      return false;
    }
  }
  return true;
}

// Sends a request for all TCP listeners, of each family in turn.
bool dump_tcp_listeners(int network_namespace, const std::function<bool(Bytes, bool&)>& take,
                        std::string& problem) {
  for (const int family : {AF_INET, AF_INET6}) {
    struct {
      nlmsghdr header;
      inet_diag_req_v2 request;
    } ask{};
    ask.header = {sizeof ask, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0};
    ask.request.sdiag_family = static_cast<uint8_t>(family);
    ask.request.sdiag_protocol = IPPROTO_TCP;
    ask.request.idiag_states = 1U << TCP_LISTEN;
    if (!dump(network_namespace, &ask, sizeof ask, take, problem)) return false;
  }
  return true;
}

// Where a listener of that message can be reached from this host.
std::string reachable(const inet_diag_msg& message) {
  const bool v6 = message.idiag_family == AF_INET6;
  std::array<char, INET6_ADDRSTRLEN> text{};
  const bool all = all_zero(message.id.idiag_src, v6 ? 4 : 1);
  if (all || ::inet_ntop(message.idiag_family, message.id.idiag_src, text.data(), text.size()) == nullptr)
    std::strcpy(text.data(), v6 ? "::1" : "127.0.0.1");
  return std::string(v6 ? "tcp:[" : "tcp:") + text.data() + (v6 ? "]:" : ":") +
         std::to_string(ntohs(message.id.idiag_sport));
}

}  // namespace

bool parse_inet_listeners(Bytes datagram, const SocketAddress& address, std::vector<ListenSocket>& exact,
                          std::vector<ListenSocket>& any, bool& done) {
  return each_answer(datagram, done, [&](Bytes payload) {
    inet_diag_msg message{};
    if (!read_as(payload, message)) return false;
    if (message.idiag_state != TCP_LISTEN || ntohs(message.id.idiag_sport) != address.port) return true;
    const ListenSocket found{message.idiag_inode, message.idiag_wqueue};
    const bool v6 = message.idiag_family == AF_INET6;
    if (all_zero(message.id.idiag_src, v6 ? 4 : 1)) {
      // One of all IPv6 addresses serves IPv4 as well unless it is v6-only; then it is not the only one.
      if (v6 || address.family() == AF_INET) any.push_back(found);
      return true;
    }
    if (v6 != (address.family() == AF_INET6)) return true;
    const void* const wanted =
        v6 ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_addr)
           : static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr);
    if (std::memcmp(message.id.idiag_src, wanted, v6 ? 16 : 4) == 0) exact.push_back(found);
    return true;
  });
}

bool parse_port_listeners(Bytes datagram, uint16_t first, uint16_t last, std::vector<PortListener>& out,
                          bool& done) {
  return each_answer(datagram, done, [&](Bytes payload) {
    inet_diag_msg message{};
    if (!read_as(payload, message)) return false;
    const uint16_t port = ntohs(message.id.idiag_sport);
    if (message.idiag_state != TCP_LISTEN || port < first || port > last) return true;
    out.push_back({message.idiag_inode, port, message.idiag_wqueue, reachable(message)});
    return true;
  });
}

std::vector<PortListener> listeners_between(uint16_t first, uint16_t last, int network_namespace,
                                            std::string& problem) {
  std::vector<PortListener> found;
  const auto take = [&](Bytes bytes, bool& done) {
    return parse_port_listeners(bytes, first, last, found, done);
  };
  if (!dump_tcp_listeners(network_namespace, take, problem)) found.clear();
  return found;
}

bool parse_unix_listeners(Bytes datagram, const SocketFile& file, std::vector<ListenSocket>& out,
                          bool& done) {
  return each_answer(datagram, done, [&](Bytes payload) {
    unix_diag_msg message{};
    if (!read_as(payload, message)) return false;
    payload = payload.subspan(sizeof message);
    bool same = false;
    uint32_t backlog = 0;
    while (payload.size() >= sizeof(nlattr)) {
      nlattr attribute{};
      (void)read_as(payload, attribute);
      if (attribute.nla_len < sizeof attribute || attribute.nla_len > payload.size()) return false;
      const Bytes value = payload.first(attribute.nla_len).subspan(sizeof attribute);
      unix_diag_vfs place{};
      unix_diag_rqlen queue{};
      if (attribute.nla_type == UNIX_DIAG_VFS && read_as(value, place))
        same = place.udiag_vfs_ino == file.inode && place.udiag_vfs_dev == file.device;
      if (attribute.nla_type == UNIX_DIAG_RQLEN && read_as(value, queue)) backlog = queue.udiag_wqueue;
      payload = payload.subspan(std::min<std::size_t>(NLMSG_ALIGN(attribute.nla_len), payload.size()));
    }
    if (same && message.udiag_state == TCP_LISTEN) out.push_back({message.udiag_ino, backlog});
    return true;
  });
}

std::optional<ListenSocket> find_listener(const SocketAddress& address, const std::string& path,
                                          int network_namespace, std::string& problem) {
  if (address.is_unix()) {
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) {
      if (errno != ENOENT) problem = path + ": " + std::strerror(errno);
      return std::nullopt;
    }
    const SocketFile file{(::major(st.st_dev) << 20) | ::minor(st.st_dev), static_cast<uint32_t>(st.st_ino)};
    struct {
      nlmsghdr header;
      unix_diag_req request;
    } ask{};
    ask.header = {sizeof ask, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0};
    ask.request.sdiag_family = AF_UNIX;
    ask.request.udiag_states = 1U << TCP_LISTEN;
    ask.request.udiag_show = UDIAG_SHOW_VFS | UDIAG_SHOW_RQLEN;
    std::vector<ListenSocket> found;
    const auto take = [&](Bytes bytes, bool& done) { return parse_unix_listeners(bytes, file, found, done); };
    if (!dump(network_namespace, &ask, sizeof ask, take, problem)) return std::nullopt;
    return found.empty() ? std::nullopt : std::optional{found.front()};
  }
  std::vector<ListenSocket> exact;
  std::vector<ListenSocket> any;
  const auto take = [&](Bytes bytes, bool& done) {
    return parse_inet_listeners(bytes, address, exact, any, done);
  };
  if (!dump_tcp_listeners(network_namespace, take, problem)) return std::nullopt;
  if (!exact.empty()) return exact.front();
  return any.empty() ? std::nullopt : std::optional{any.front()};
}

bool process_has_socket(pid_t process, uint64_t inode) {
  const std::string wanted = "socket:[" + std::to_string(inode) + "]";
  bool has = false;
  each_descriptor_of(process, [&](int, std::string_view target) {
    has = target == wanted;
    return !has;
  });
  return has;
}

std::vector<pid_t> processes_with_socket(uint64_t inode) {
  std::vector<pid_t> found;
  each_process([&](pid_t process) {
    if (process_has_socket(process, inode)) found.push_back(process);
  });
  return found;
}

}  // namespace migrx

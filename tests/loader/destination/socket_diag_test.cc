// The kernel's own answers about listeners of this process, and damaged ones.
#include "loader/destination/socket_diag.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <tuple>

#include "numa/descriptor.h"

namespace migrx {
namespace {

SocketAddress address_of(const std::string& text) {
  SocketAddress address;
  EXPECT_EQ(parse_socket_address(text, address), "");
  return address;
}

// A listener on loopback; the port is chosen by the kernel and written to `port`.
Descriptor listen_tcp(const char* ip, int backlog, uint16_t& port) {
  Descriptor fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  sockaddr_in in{};
  in.sin_family = AF_INET;
  ::inet_pton(AF_INET, ip, &in.sin_addr);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&in), sizeof in), 0);
  EXPECT_EQ(::listen(fd.get(), backlog), 0);
  socklen_t length = sizeof in;
  EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&in), &length), 0);
  port = ntohs(in.sin_port);
  return fd;
}

TEST(FindListener, tells_the_backlog_and_the_owner_of_a_tcp_listener_without_connecting) {
  for (const char* const ip : {"127.0.0.1", "0.0.0.0"}) {
    uint16_t port = 0;
    const Descriptor fd = listen_tcp(ip, 5, port);
    std::string problem;
    const auto found = find_listener(address_of("tcp:127.0.0.1:" + std::to_string(port)), "", -1, problem);
    ASSERT_TRUE(found) << problem;
    EXPECT_EQ(found->backlog, 5U);
    const std::vector<pid_t> owners = processes_with_socket(found->inode);
    EXPECT_NE(std::find(owners.begin(), owners.end(), ::getpid()), owners.end());
    EXPECT_TRUE(process_has_socket(::getpid(), found->inode));
    EXPECT_FALSE(process_has_socket(::getpid(), found->inode + 1'000'000'000));
    EXPECT_LT(::accept4(fd.get(), nullptr, nullptr, SOCK_NONBLOCK), 0);
  }
}

TEST(FindListener, one_of_another_address_or_none_is_not_found) {
  uint16_t port = 0;
  Descriptor fd = listen_tcp("127.0.0.2", 1, port);
  std::string problem;
  EXPECT_FALSE(find_listener(address_of("tcp:127.0.0.1:" + std::to_string(port)), "", -1, problem));
  EXPECT_EQ(problem, "");
  fd.reset();
  EXPECT_FALSE(find_listener(address_of("tcp:127.0.0.2:" + std::to_string(port)), "", -1, problem));
}

TEST(FindListener, tells_the_backlog_of_a_unix_listener) {
  const std::string path = "/tmp/migrx-socket-diag-test-" + std::to_string(::getpid());
  const SocketAddress address = address_of("unix:" + path);
  std::string problem;
  EXPECT_FALSE(find_listener(address, path, -1, problem));
  EXPECT_EQ(problem, "");
  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(::bind(fd.get(), address.get(), address.length), 0);
  ASSERT_EQ(::listen(fd.get(), 3), 0);
  const auto found = find_listener(address, path, -1, problem);
  ASSERT_TRUE(found) << problem;
  EXPECT_EQ(found->backlog, 3U);
  EXPECT_TRUE(process_has_socket(::getpid(), found->inode));
  fd.reset();  // the file stays
  EXPECT_FALSE(find_listener(address, path, -1, problem));
  std::filesystem::remove(path);
}

TEST(ListenersBetween, tells_those_of_the_range_with_the_way_to_each) {
  uint16_t one = 0, all = 0, beyond = 0;
  const Descriptor of_one = listen_tcp("127.0.0.3", 3, one);
  const Descriptor of_all = listen_tcp("0.0.0.0", 1, all);
  const Descriptor other = listen_tcp("127.0.0.1", 1, beyond);
  for (const auto& [port, backlog, address] :
       {std::tuple{one, 3U, "tcp:127.0.0.3:"}, std::tuple{all, 1U, "tcp:127.0.0.1:"}}) {
    std::string problem;
    const std::vector<PortListener> found = listeners_between(port, port, -1, problem);
    ASSERT_EQ(found.size(), 1U) << problem;
    EXPECT_EQ(found[0].port, port);
    EXPECT_EQ(found[0].backlog, backlog);
    EXPECT_EQ(found[0].address, address + std::to_string(port));
    EXPECT_TRUE(process_has_socket(::getpid(), found[0].inode));
    SocketAddress parsed;
    EXPECT_EQ(parse_socket_address(found[0].address, parsed), "");
  }
}

TEST(ListenersBetween, an_ipv6_one_is_reached_by_ipv6) {
  Descriptor fd(::socket(AF_INET6, SOCK_STREAM, 0));
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  socklen_t length = sizeof in;
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&in), sizeof in) != 0)
    GTEST_SKIP() << "this host has no IPv6";
  ASSERT_EQ(::listen(fd.get(), 2), 0);
  ASSERT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&in), &length), 0);
  const uint16_t port = ntohs(in.sin6_port);
  std::string problem;
  const std::vector<PortListener> found = listeners_between(port, port, -1, problem);
  ASSERT_EQ(found.size(), 1U) << problem;
  EXPECT_EQ(found[0].address, "tcp:[::1]:" + std::to_string(port));
}

TEST(ParseInetListeners, torn_answers_are_refused) {
  std::vector<std::byte> datagram(NLMSG_ALIGN(sizeof(nlmsghdr) + sizeof(inet_diag_msg)));
  nlmsghdr header{static_cast<uint32_t>(datagram.size()), SOCK_DIAG_BY_FAMILY, 0, 0, 0};
  inet_diag_msg message{};
  message.idiag_family = AF_INET;
  message.idiag_state = 10;  // TCP_LISTEN
  message.id.idiag_sport = htons(5);
  message.id.idiag_src[0] = htonl(0x7f000001);
  message.idiag_wqueue = 4;
  message.idiag_inode = 77;
  std::memcpy(datagram.data(), &header, sizeof header);
  std::memcpy(datagram.data() + sizeof header, &message, sizeof message);
  const SocketAddress address = address_of("tcp:127.0.0.1:5");
  const auto parse = [&](Bytes bytes, std::size_t& found) {
    std::vector<ListenSocket> exact, any;
    bool done = false;
    const bool ok = parse_inet_listeners(bytes, address, exact, any, done);
    found = exact.size();
    return ok && !done;
  };
  const auto parse_ports = [](Bytes bytes) {
    std::vector<PortListener> all;
    bool done = false;
    return parse_port_listeners(bytes, 1, 9, all, done) && !done && all.size() == 1;
  };
  std::size_t found = 0;
  EXPECT_TRUE(parse(datagram, found));
  EXPECT_EQ(found, 1U);
  EXPECT_TRUE(parse_ports(datagram));
  for (std::size_t n = 1; n < datagram.size(); ++n) {
    EXPECT_FALSE(parse(Bytes{datagram}.first(n), found)) << n;
    EXPECT_FALSE(parse_ports(Bytes{datagram}.first(n))) << n;
  }
  header.nlmsg_len = sizeof header + 1;
  std::memcpy(datagram.data(), &header, sizeof header);
  EXPECT_FALSE(parse(datagram, found));
  header.nlmsg_len = 0;
  std::memcpy(datagram.data(), &header, sizeof header);
  EXPECT_FALSE(parse(datagram, found));
  header = {static_cast<uint32_t>(datagram.size()), NLMSG_ERROR, 0, 0, 0};
  std::memcpy(datagram.data(), &header, sizeof header);
  EXPECT_FALSE(parse(datagram, found));
}

}  // namespace
}  // namespace migrx

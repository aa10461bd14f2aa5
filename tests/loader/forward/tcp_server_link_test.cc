#include "loader/forward/tcp_server_link.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <string>

namespace migrx {
namespace {

struct TcpServerLinkTest : testing::Test {
  Descriptor listener{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  SocketAddress address;

  void SetUp() override {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
    ASSERT_EQ(::listen(listener.get(), 4), 0);
    socklen_t length = sizeof any;
    ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&any), &length), 0);
    ASSERT_EQ(parse_socket_address("tcp:127.0.0.1:" + std::to_string(ntohs(any.sin_port)), address), "");
  }
  static ServerLink::Way settled(TcpServerLink& link) {
    for (int i = 0; i < 1000 && link.way() == ServerLink::Way::opening; ++i) ::poll(nullptr, 0, 1);
    return link.way();
  }
  static std::string received(int fd, std::size_t bytes) {
    std::string text(bytes, '\0');
    return ::recv(fd, text.data(), bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes) ? text : "";
  }
};

Bytes bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

TEST_F(TcpServerLinkTest, speaks_with_a_server) {
  TcpServerLink link(address, -1);
  ASSERT_EQ(settled(link), ServerLink::Way::open);
  const Descriptor peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const std::string one = "one ";
  const std::string two = "two";
  const std::array<Bytes, 2> pieces{bytes_of(one), bytes_of(two)};
  EXPECT_EQ(link.send(pieces).bytes, 7U);
  EXPECT_EQ(received(peer.get(), 7), "one two");

  std::array<std::byte, 16> into;
  const ServerLink::Step nothing = link.receive(into);
  EXPECT_TRUE(nothing.bytes == 0 && !nothing.ended && !nothing.failed);
  ASSERT_EQ(::send(peer.get(), "hi", 2, 0), 2);
  pollfd waits{link.fd(), POLLIN, 0};
  ::poll(&waits, 1, 1000);
  EXPECT_EQ(link.receive(into).bytes, 2U);
  link.finish_sending();
  std::string rest(1, '\0');
  EXPECT_EQ(::recv(peer.get(), rest.data(), 1, 0), 0);
  ::shutdown(peer.get(), SHUT_WR);
  ::poll(&waits, 1, 1000);
  EXPECT_TRUE(link.receive(into).ended);
}

TEST_F(TcpServerLinkTest, a_port_without_a_server_fails) {
  listener.reset();
  TcpServerLink link(address, -1);
  EXPECT_EQ(settled(link), ServerLink::Way::failed);
}

TEST_F(TcpServerLinkTest, a_full_server_takes_no_more_for_now) {
  TcpServerLink link(address, -1);
  ASSERT_EQ(settled(link), ServerLink::Way::open);
  const std::string much(1 << 20, 'x');
  const std::array<Bytes, 1> pieces{bytes_of(much)};
  ServerLink::Step step{.bytes = 1};
  for (int i = 0; i < 1000 && step.bytes > 0; ++i) step = link.send(pieces);
  EXPECT_TRUE(step.bytes == 0 && !step.failed);
}

TEST_F(TcpServerLinkTest, closing_with_a_reset_is_heard) {
  TcpServerLink link(address, -1);
  ASSERT_EQ(settled(link), ServerLink::Way::open);
  const Descriptor peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  link.close(/*reset=*/true);
  EXPECT_EQ(link.fd(), -1);
  EXPECT_EQ(link.way(), ServerLink::Way::failed);
  char byte = 0;
  EXPECT_EQ(::recv(peer.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

TEST_F(TcpServerLinkTest, a_server_that_dies_fails) {
  TcpServerLink link(address, -1);
  ASSERT_EQ(settled(link), ServerLink::Way::open);
  Descriptor peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const linger at_once{1, 0};
  ::setsockopt(peer.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  peer.reset();
  const std::string text = "x";
  const std::array<Bytes, 1> pieces{bytes_of(text)};
  std::array<std::byte, 4> into;
  EXPECT_TRUE(link.receive(into).failed);
  EXPECT_TRUE(link.send(pieces).failed);
}

}  // namespace
}  // namespace migrx

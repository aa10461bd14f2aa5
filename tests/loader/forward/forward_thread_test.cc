#include "loader/forward/forward_thread.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <string>

namespace migrx {
namespace {

// A server of this process, on a port that the kernel chooses.
struct Server {
  Descriptor socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  uint16_t port = 0;
  SocketAddress address;

  Server() {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof any;
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
    EXPECT_EQ(::listen(socket.get(), 4), 0);
    EXPECT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&any), &length), 0);
    port = ntohs(any.sin_port);
    EXPECT_EQ(parse_socket_address("tcp:127.0.0.1:" + std::to_string(port), address), "");
  }
};

bool wait_until(const std::function<bool()>& holds) {
  for (int i = 0; i < 5000; ++i) {
    if (holds()) return true;
    ::poll(nullptr, 0, 1);
  }
  return false;
}

void say(Handoff& ring, const std::string& text) {
  ring.push(reinterpret_cast<const std::byte*>(text.data()), const_cast<std::string*>(&text),
            static_cast<uint32_t>(text.size()));
  ring.publish();
  ring.bytes_received.add(text.size());
}

TEST(ForwardThread, forwards_and_gives_the_connection_back) {
  const Server server;
  ForwardThread thread({}, {});
  Handoff ring(64);
  const std::string hello = "hello";
  say(ring, hello);
  thread.take(ring, server.address);
  const Descriptor peer(::accept4(server.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
  std::string heard(5, '\0');
  ASSERT_EQ(::recv(peer.get(), heard.data(), 5, MSG_WAITALL), 5);
  EXPECT_EQ(heard, hello);
  ASSERT_EQ(::send(peer.get(), "answer", 6, 0), 6);
  ConnectionCommand command;
  ASSERT_TRUE(wait_until([&] { return ring.take_command(command); }));
  EXPECT_EQ(command.length, 6);
  ring.push_end(StreamEnd::fin);
  ring.publish();
  ASSERT_EQ(::recv(peer.get(), heard.data(), 1, 0), 0);
  ::shutdown(peer.get(), SHUT_WR);
  ForwardThread::News news;
  ASSERT_TRUE(wait_until([&] {
    news = thread.take_news();
    return !news.ended.empty();
  }));
  EXPECT_EQ(news.ended[0].connection, &ring);
  EXPECT_EQ(news.ended[0].end, Forward::End::orderly);
  EXPECT_EQ(news.ended[0].bytes_to_server, 5U);
  EXPECT_EQ(news.ended[0].bytes_to_peer, 6U);
  EXPECT_TRUE(ring.detached());
}

TEST(ForwardThread, stop_gives_back_what_is_under_way_and_what_has_just_come) {
  const Server server;
  ForwardThread thread({}, {});
  Handoff one(64);
  Handoff two(64);
  thread.take(one, server.address);
  const Descriptor peer(::accept4(server.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
  thread.take(two, server.address);
  thread.stop();
  const ForwardThread::News news = thread.take_news();
  ASSERT_EQ(news.ended.size(), 2U);
  EXPECT_EQ(news.ended[0].end, Forward::End::given_up);
  EXPECT_TRUE(one.detached() && two.detached());
  thread.stop();
}

TEST(ForwardThread, finds_what_the_process_listens_on_but_its_migration) {
  const Server migration;
  const Server disks;
  ForwardThread thread(WatchedProcess{::getpid(), 1, 65535, migration.port}, {});
  ForwardThread::News news = thread.take_news();
  EXPECT_EQ(news.problem, "");
  ASSERT_EQ(news.appeared.size(), 1U);  // known as soon as the constructor has returned
  EXPECT_EQ(news.appeared[0].port, disks.port);
  EXPECT_EQ(news.appeared[0].address, disks.address.text);
}

TEST(ForwardThread, finds_what_begins_to_listen_later_and_what_ends) {
  ForwardThread thread(WatchedProcess{::getpid(), 1, 65535, 0}, {});
  EXPECT_TRUE(thread.take_news().appeared.empty());
  Server disks;
  ForwardThread::News news;
  ASSERT_TRUE(wait_until([&] {
    news = thread.take_news();
    return !news.appeared.empty();
  }));
  EXPECT_EQ(news.appeared[0].port, disks.port);
  disks.socket.reset();
  ASSERT_TRUE(wait_until([&] {
    news = thread.take_news();
    return !news.gone.empty();
  }));
  EXPECT_EQ(news.gone[0].port, disks.port);
}

TEST(ForwardThread, another_processs_listener_is_none_of_ours) {
  const Server disks;
  ForwardThread thread(WatchedProcess{::getppid(), disks.port, disks.port, 0}, {});
  ::poll(nullptr, 0, 250);
  EXPECT_TRUE(thread.take_news().appeared.empty());
}

TEST(ForwardThread, a_range_leaves_others_out) {
  const Server disks;
  const auto beyond = static_cast<uint16_t>(disks.port + 1);
  ForwardThread thread(WatchedProcess{::getpid(), beyond, beyond, 0}, {});
  EXPECT_TRUE(thread.take_news().appeared.empty());
}

TEST(ForwardThread, a_process_that_is_not_there_is_a_problem_said_once) {
  ForwardThread thread(WatchedProcess{0x3fffffff, 1, 65535, 0}, {});
  EXPECT_NE(thread.take_news().problem, "");
  ::poll(nullptr, 0, 250);
  EXPECT_EQ(thread.take_news().problem, "");
}

}  // namespace
}  // namespace migrx

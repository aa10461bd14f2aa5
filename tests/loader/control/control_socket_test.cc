#include "loader/control/control_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <chrono>
#include <functional>
#include <thread>

#include "tests/loader/control/socket_folder.h"

namespace migrx {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

class FakeService : public ControlService {
 public:
  ControlAnswer execute(ControlRequest& request) override {
    ++executed;
    last_peer = request.peer;
    if (request.command == "echo") return request.arguments;
    if (request.command == "files") return Json(request.files.size());
    if (request.command == "keep") {
      for (Descriptor& file : request.files) kept.push_back(std::move(file));
      return Json(kept.size());
    }
    if (request.command == "throw") throw std::runtime_error("it went wrong");
    if (request.command == "large") return Json(std::string(1 << 20, 'x'));
    if (during) during();
    return ControlError{control_class::kCommandNotFound, "there is no command " + request.command};
  }
  int executed = 0;
  ControlPeer last_peer;
  std::vector<Descriptor> kept;
  std::function<void()> during;
};

class ControlSocketTest : public ::testing::Test {
 protected:
  ControlSocketTest() { make(); }
  void make(std::size_t clients_max = 16, std::size_t of_root = 4) {
    socket_.reset();
    socket_ = std::make_unique<ControlSocket>(
        ControlSocketSettings{folder_ / "control", "", "1.2.3", clients_max, of_root}, service_);
  }
  // Until there is nothing to do.
  void work() {
    for (int i = 0; i < 10000 && readable(socket_->wake_fd()); ++i) (void)socket_->do_work();
    EXPECT_FALSE(readable(socket_->wake_fd()));
  }
  static bool readable(int fd) {
    pollfd waits{fd, POLLIN, 0};
    return ::poll(&waits, 1, 0) == 1;
  }
  Descriptor connect() {
    Descriptor client = test::connect_to(folder_ / "control");
    EXPECT_TRUE(client);
    work();
    return client;
  }
  Descriptor greeted() {
    Descriptor client = connect();
    EXPECT_EQ(read(client)["migrx"]["protocol"], 1);
    return client;
  }
  void send(const Descriptor& client, std::string_view text, const std::vector<int>& files = {}) {
    EXPECT_TRUE(test::send_with(client.get(), text, files));
    work();
  }
  // The next line; null: there is none.
  Json read(const Descriptor& client) {
    std::string line;
    for (char c = 0; line.empty() || line.back() != '\n'; line.push_back(c)) {
      if (::recv(client.get(), &c, 1, MSG_DONTWAIT) != 1) return nullptr;
    }
    return Json::parse(line);
  }
  bool closed(const Descriptor& client) {
    char c = 0;
    ssize_t n = 0;
    while ((n = ::recv(client.get(), &c, 1, MSG_DONTWAIT)) == 1) {
    }
    return n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }
  std::string error_class(const Descriptor& client) {
    const Json line = read(client);
    return line.is_object() && line.contains("error") ? line["error"]["class"].get<std::string>() : "";
  }

  test::SocketFolder folder_;
  FakeService service_;
  std::unique_ptr<ControlSocket> socket_;
};

TEST_F(ControlSocketTest, greets_and_answers_in_order_with_the_ids) {
  const Descriptor client = connect();
  EXPECT_EQ(read(client),
            Json::parse(R"({"migrx": {"version": "1.2.3", "protocol": 1, "capabilities": []}})"));
  send(client,
       "{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"echo\", \"arguments\": {\"a\": 1}, \"id\": 7}\n"
       "{\"execute\": \"nothing\", \"id\": \"x\"}\n{\"execute\": \"throw\"}\n");
  EXPECT_EQ(read(client), Json::parse(R"({"return": {}})"));
  EXPECT_EQ(read(client), Json::parse(R"({"return": {"a": 1}, "id": 7})"));
  const Json refused = read(client);
  EXPECT_EQ(refused["error"]["class"], "CommandNotFound");
  EXPECT_EQ(refused["id"], "x");
  EXPECT_EQ(read(client)["error"]["desc"], "it went wrong");
  EXPECT_EQ(service_.last_peer.uid, ::geteuid());
  EXPECT_EQ(service_.last_peer.pid, ::getpid());
}

TEST_F(ControlSocketTest, what_is_no_request_is_answered_and_the_conversation_goes_on) {
  const Descriptor client = greeted();
  send(client, "hello?\n{\"execute\": \"echo\"}\n");
  EXPECT_EQ(error_class(client), "MalformedRequest");
  EXPECT_EQ(read(client)["return"], Json::object());
}

TEST_F(ControlSocketTest, a_mebibyte_without_a_newline_ends_its_client_alone) {
  const Descriptor other = greeted();
  const Descriptor client = greeted();
  const std::string piece(16 << 10, 'x');
  int pieces = 0;
  while (pieces < 64 && ::send(client.get(), piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT) > 0) {
    work();
    ++pieces;
  }
  EXPECT_LE(pieces, 6);
  EXPECT_EQ(error_class(client), "MalformedRequest");
  EXPECT_TRUE(closed(client));
  send(other, "{\"execute\": \"echo\"}\n");
  EXPECT_EQ(read(other)["return"], Json::object());
  EXPECT_EQ(socket_->clients(), 1U);
}

TEST_F(ControlSocketTest, half_a_line_and_silence_cost_a_place_and_nothing_else) {
  const Descriptor client = greeted();
  send(client, "{\"execute\": \"ec");
  for (int i = 0; i < 100; ++i) EXPECT_EQ(socket_->do_work(), 0U);
  send(client, "ho\"}\n");
  EXPECT_EQ(read(client)["return"], Json::object());
}

TEST_F(ControlSocketTest, who_stops_sending_still_gets_the_answers) {
  const Descriptor client = greeted();
  EXPECT_TRUE(test::send_with(client.get(), "{\"execute\": \"echo\"}\n{\"execute\": \"ech", {}));
  ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
  work();
  EXPECT_EQ(read(client)["return"], Json::object());
  EXPECT_TRUE(closed(client));
  EXPECT_EQ(socket_->clients(), 0U);
}

TEST_F(ControlSocketTest, a_client_that_was_killed_in_the_middle_of_everything_is_forgotten) {
  for (int i = 0; i < 50; ++i) {
    Descriptor client = connect();
    EXPECT_TRUE(
        test::send_with(client.get(), "{\"execute\": \"large\"}\n{\"execute\": \"large\"}\n{\"exe", {}));
    if (i % 2 == 0) work();
    client.reset();
    work();
    EXPECT_EQ(socket_->clients(), 0U);
  }
}

TEST_F(ControlSocketTest, a_client_that_never_reads_is_sent_nothing_more_and_then_goes) {
  const Descriptor other = greeted();
  const Descriptor client = greeted();
  // Its requests wait with its answers.
  for (int i = 0; i < 200; ++i)
    (void)::send(client.get(), "{\"execute\": \"large\"}\n", 21, MSG_NOSIGNAL | MSG_DONTWAIT);
  work();
  EXPECT_LE(service_.executed, 2);
  EXPECT_EQ(socket_->clients(), 2U);
  // Events are for everybody.
  int events = 0;
  for (; events < 1000 && socket_->clients() == 2; ++events) {
    socket_->event("ROUND", {{"text", std::string(2000, 'x')}});
    while (read(other) != nullptr) {
    }
    (void)socket_->do_work();
  }
  EXPECT_LT(events, 200);
  EXPECT_EQ(socket_->clients(), 1U);
  send(other, "{\"execute\": \"echo\"}\n");
  EXPECT_EQ(read(other)["return"], Json::object());
}

TEST_F(ControlSocketTest, an_answer_larger_than_any_buffer_arrives_whole) {
  const Descriptor client = greeted();
  send(client, "{\"execute\": \"large\"}\n{\"execute\": \"echo\"}\n");
  std::string text;
  std::array<char, 65536> bytes;
  for (int i = 0; i < 100000 && std::count(text.begin(), text.end(), '\n') < 2; ++i) {
    const ssize_t n = ::recv(client.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (n > 0) text.append(bytes.data(), static_cast<std::size_t>(n));
    (void)socket_->do_work();
  }
  EXPECT_EQ(Json::parse(text.substr(0, text.find('\n')))["return"].get<std::string>().size(), 1U << 20);
}

TEST_F(ControlSocketTest, events_reach_every_client_also_from_within_a_command) {
  const Descriptor one = greeted();
  const Descriptor other = greeted();
  service_.during = [&] { socket_->event("READY", {{"id", "s1"}, {"port", 4444}}); };
  send(one, "{\"execute\": \"x\"}\n");
  const Json event = read(other);
  EXPECT_EQ(event["event"], "READY");
  EXPECT_EQ(event["data"], Json::parse(R"({"id": "s1", "port": 4444})"));
  EXPECT_GT(event["timestamp"]["seconds"], 1'000'000'000);
  EXPECT_EQ(read(one)["event"], "READY");
  EXPECT_EQ(error_class(one), "CommandNotFound");
}

TEST_F(ControlSocketTest, a_flood_of_requests_leaves_others_their_turn) {
  const Descriptor flooder = greeted();
  const Descriptor client = greeted();
  std::string flood;
  for (int i = 0; i < 600; ++i) flood += "{\"execute\": \"echo\"}\n";
  EXPECT_TRUE(test::send_with(flooder.get(), flood, {}));
  EXPECT_TRUE(test::send_with(client.get(), "{\"execute\": \"echo\"}\n", {}));
  (void)socket_->do_work();
  EXPECT_LE(service_.executed, static_cast<int>(ControlSocket::kRequestsPerTurn));
  EXPECT_EQ(read(client)["return"], Json::object());  // in the first turn
  EXPECT_TRUE(readable(socket_->wake_fd()));          // the rest is not forgotten
  while (read(flooder) != nullptr || readable(socket_->wake_fd())) (void)socket_->do_work();
  EXPECT_EQ(service_.executed, 601);
}

TEST_F(ControlSocketTest, places_are_few_and_who_gets_none_is_told) {
  make(3, 1);
  const Descriptor one = greeted();
  const Descriptor two = greeted();
  const Descriptor three = greeted();
  const Descriptor four = greeted();
  EXPECT_EQ(error_class(four), "NoRoom");
  EXPECT_TRUE(closed(four));
  EXPECT_EQ(socket_->clients(), 3U);
}

TEST_F(ControlSocketTest, descriptors_come_with_their_request) {
  const Descriptor client = greeted();
  const Descriptor first = test::memory_file();
  const Descriptor second = test::memory_file();
  // Two messages that the kernel gives as one.
  EXPECT_TRUE(test::send_with(client.get(), "{\"execute\": \"files\"}\n", {}));
  send(client, "{\"execute\": \"files\"}\n", {first.get(), second.get()});
  send(client, "{\"execute\": \"files\"}\n");
  EXPECT_EQ(read(client)["return"], 0);
  EXPECT_EQ(read(client)["return"], 2);
  EXPECT_EQ(read(client)["return"], 0);
  send(client, "{\"execute\": \"keep\"}\n", {second.get()});
  EXPECT_EQ(read(client)["return"], 1);
  struct stat sent {};
  struct stat kept {};
  ASSERT_EQ(::fstat(second.get(), &sent), 0);
  ASSERT_EQ(::fstat(service_.kept[0].get(), &kept), 0);
  EXPECT_EQ(sent.st_ino, kept.st_ino);
  EXPECT_EQ(::fcntl(service_.kept[0].get(), F_GETFD), FD_CLOEXEC);
}

std::size_t open_files() {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                                std::filesystem::directory_iterator{}));
}

TEST_F(ControlSocketTest, descriptors_that_nobody_took_are_closed_whatever_becomes_of_their_request) {
  const Descriptor file = test::memory_file();
  const std::size_t before = open_files();
  for (int i = 0; i < 20; ++i) {
    const Descriptor client = greeted();
    send(client, "{\"execute\": \"files\"}\n", {file.get(), file.get()});
    send(client, "nonsense\n\n", {file.get()});
    send(client, "{\"execute\": \"half", {file.get()});
  }
  work();
  EXPECT_LE(open_files(), before);
}

TEST_F(ControlSocketTest, descriptors_of_folders_pipes_and_sockets_end_their_client) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const Descriptor reader(pipe[0]);
  const Descriptor writer(pipe[1]);
  const Descriptor folder(::open("/dev/shm", O_RDONLY | O_DIRECTORY));
  const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  const Descriptor memory = test::memory_file();
  for (const int file : {folder.get(), reader.get(), socket.get()}) {
    const Descriptor client = greeted();
    send(client, "{\"execute\": \"files\"}\n", {memory.get(), file});
    EXPECT_EQ(error_class(client), "MalformedRequest");
    EXPECT_TRUE(closed(client));
  }
  EXPECT_EQ(service_.executed, 0);
}

TEST_F(ControlSocketTest, many_descriptors_at_once_end_their_client_and_none_stays) {
  const Descriptor file = test::memory_file();
  const std::size_t before = open_files();
  {
    const Descriptor client = greeted();
    send(client, "{\"execute\": \"files\"}\n", std::vector<int>(253, file.get()));
    EXPECT_EQ(error_class(client), "MalformedRequest");
  }
  work();
  EXPECT_LE(open_files(), before);
}

// Sent, and never read by us.
TEST_F(ControlSocketTest, descriptors_left_in_the_queue_are_closed_with_their_connection) {
  const Descriptor client = greeted();
  send(client, std::string(ControlParser::kLineMax + 1, 'x').substr(0, 60000));
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const Descriptor reader(pipe[0]);
  EXPECT_TRUE(test::send_with(client.get(), std::string(10000, 'x'), {}));
  EXPECT_TRUE(test::send_with(client.get(), "y", {pipe[1]}));
  ::close(pipe[1]);
  work();
  EXPECT_EQ(socket_->clients(), 0U);
  char byte = 0;
  EXPECT_EQ(::read(reader.get(), &byte, 1), 0);  // the writing end is closed
}

TEST_F(ControlSocketTest, without_a_free_descriptor_it_rests_and_comes_back) {
  const Descriptor first = greeted();
  Descriptor waiting = test::connect_to(folder_ / "control");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit tight{256, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  std::vector<Descriptor> all;
  for (int fd; (fd = ::dup(STDERR_FILENO)) >= 0;) all.emplace_back(fd);
  (void)socket_->do_work();
  (void)socket_->do_work();
  EXPECT_FALSE(readable(socket_->wake_fd()));  // else the thread would spin
  EXPECT_EQ(socket_->clients(), 1U);
  all.clear();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  const auto until = steady_clock::now() + milliseconds(5000);
  while (socket_->clients() < 2 && steady_clock::now() < until) {
    (void)socket_->do_work();
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_EQ(socket_->clients(), 2U);
}

// ---- Another user ----

class ControlSocketOfAnotherUserTest : public ControlSocketTest {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    ASSERT_EQ(::chmod((folder_ / "control").c_str(), 0666), 0);
  }
  // Connections made by a child that runs as user 65534, given back through a socket pair.
  Descriptor connect_as_nobody() {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setgid(65534) != 0 || ::setuid(65534) != 0) std::_Exit(1);
      const Descriptor client = test::connect_to(folder_ / "control");
      std::_Exit(client && test::send_with(pair[1], "x", {client.get()}) ? 0 : 1);
    }
    ::close(pair[1]);
    int status = -1;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    char byte = 0;
    iovec part{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control;
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    EXPECT_EQ(::recvmsg(pair[0], &message, 0), 1);
    ::close(pair[0]);
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    work();
    return Descriptor(fd);
  }
};

TEST_F(ControlSocketOfAnotherUserTest, who_connected_counts_and_not_who_sends) {
  const Descriptor client = connect_as_nobody();
  EXPECT_TRUE(read(client).contains("migrx"));
  send(client, "{\"execute\": \"echo\"}\n");  // by root
  EXPECT_EQ(service_.last_peer.uid, 65534U);
}

TEST_F(ControlSocketOfAnotherUserTest, the_last_places_are_roots) {
  make(8, 4);
  ASSERT_EQ(::chmod((folder_ / "control").c_str(), 0666), 0);
  std::vector<Descriptor> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(connect_as_nobody());
  EXPECT_EQ(socket_->clients(), 3U);
  const Descriptor refused = connect_as_nobody();  // one user leaves room for another
  EXPECT_TRUE(read(refused).contains("migrx"));
  EXPECT_EQ(error_class(refused), "NoRoom");
  for (int i = 0; i < 5; ++i) clients.push_back(greeted());
  EXPECT_EQ(socket_->clients(), 8U);
}

}  // namespace
}  // namespace migrx

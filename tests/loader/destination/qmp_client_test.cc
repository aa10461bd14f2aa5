// A QEMU played by a thread behind a UNIX socket.
#include "loader/destination/qmp_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace migrx {
namespace {

constexpr const char* kGreeting =
    "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7, \"minor\": 2, \"micro\": 5}}, \"capabilities\": "
    "[]}}\r\n";

class QmpClientTest : public ::testing::Test {
 protected:
  // answers[i] is written when line i has come; the last one is followed by the end of the connection.
  void play(const std::string& greeting, std::vector<std::string> answers) {
    const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
    ASSERT_EQ(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listener, 1), 0);
    qemu_ = std::thread([this, listener, greeting, answers = std::move(answers)] {
      const int fd = ::accept(listener, nullptr, nullptr);
      ::close(listener);
      write(fd, greeting);
      char byte = 0;
      std::string line;
      std::size_t next = 0;
      while (next < answers.size() && ::read(fd, &byte, 1) == 1) {
        line += byte;
        if (byte != '\n') continue;
        lines_.push_back(line);
        line.clear();
        write(fd, answers[next++]);
      }
      ::close(fd);
    });
  }
  static void write(int fd, const std::string& text) {
    (void)!::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
  }
  void TearDown() override {
    if (qemu_.joinable()) qemu_.join();
    ::unlink(path_.c_str());
  }
  std::unique_ptr<QmpClient> connect() { return QmpClient::connect({path_}, problem_); }

  const std::string path_ = "/tmp/migrx-qmp-client-test-" + std::to_string(::getpid());
  std::thread qemu_;
  std::vector<std::string> lines_;
  std::string problem_;
};

TEST_F(QmpClientTest, negotiates_passes_over_events_and_answers) {
  play(kGreeting,
       {"{\"return\": {}}\r\n", "{\"event\": \"X\"}\r\n{\"return\": {\"status\": \"inmigrate\"}}\r\n",
        "{\"error\": {\"desc\": \"not now\"}}\r\n"});
  auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  EXPECT_EQ(client->version(), "7.2.5");
  std::string result;
  EXPECT_EQ(client->command("query-status", "", result), "");
  EXPECT_EQ(parse_qmp_member(result, "status"), "inmigrate");
  EXPECT_EQ(client->command("cont", "{\"a\": 1}", result), "cont: not now");
  EXPECT_EQ(client->command("quit", "", result).find("quit: "), 0U);  // the connection is gone
  client.reset();
  qemu_.join();
  EXPECT_EQ(lines_[0], "{\"execute\": \"qmp_capabilities\"}\n");
  EXPECT_EQ(lines_[2], "{\"execute\": \"cont\", \"arguments\": {\"a\": 1}}\n");
}

// QEMU 10.0.2 has been seen to greet twice while it starts.
TEST_F(QmpClientTest, a_second_greeting_begins_the_negotiation_anew) {
  play(kGreeting, {"{\"return\": {}}\r\n" + std::string(kGreeting),
                   "{\"error\": {\"desc\": \"Expecting capabilities negotiation\"}}\r\n",
                   "{\"return\": {}}\r\n", "{\"return\": 3}\r\n"});
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  std::string result;
  EXPECT_EQ(client->command("query-x", "", result), "");
  EXPECT_EQ(result, "3");
}

TEST_F(QmpClientTest, strangers_are_told_apart) {
  play("220 mail ready\r\n", {});
  EXPECT_EQ(connect(), nullptr);
  EXPECT_NE(problem_.find("no QMP"), std::string::npos) << problem_;
}

TEST_F(QmpClientTest, a_busy_socket_closes) {
  play("", {});
  EXPECT_EQ(connect(), nullptr);
  EXPECT_NE(problem_.find("closed the connection"), std::string::npos) << problem_;
}

TEST_F(QmpClientTest, endless_greetings_end) {
  const std::string again = kGreeting + std::string("{\"error\": {\"desc\": \"negotiate\"}}\r\n");
  play(kGreeting, {"{\"return\": {}}\r\n", again, "{\"return\": {}}\r\n", again, "{\"return\": {}}\r\n",
                   again, "{\"return\": {}}\r\n", again, "{\"return\": {}}\r\n"});
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  std::string result;
  EXPECT_NE(client->command("query-x", "", result), "");
}

TEST_F(QmpClientTest, a_refused_negotiation_is_told) {
  play(kGreeting, {"{\"error\": {\"desc\": \"no\"}}\r\n"});
  EXPECT_EQ(connect(), nullptr);
  EXPECT_NE(problem_.find("qmp_capabilities: no"), std::string::npos) << problem_;
}

TEST_F(QmpClientTest, greeting_after_every_command_ends_too) {
  const std::string again = kGreeting + std::string("{\"error\": {\"desc\": \"negotiate\"}}\r\n");
  play(kGreeting, {"{\"return\": {}}\r\n", again, "{\"return\": {}}\r\n", again, "{\"return\": {}}\r\n",
                   again, "{\"return\": {}}\r\n"});
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  std::string result;
  EXPECT_EQ(client->command("query-x", "", result), "query-x: QEMU begins its negotiation again and again");
}

// A QEMU that does not answer keeps nobody from being ended.
TEST_F(QmpClientTest, a_signal_is_heard_while_qemu_says_nothing) {
  int wake[2];
  ASSERT_EQ(::pipe(wake), 0);
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  ASSERT_EQ(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  std::thread signal([&wake] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1200));
    (void)!::write(wake[1], "x", 1);
  });
  std::vector<double> told;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(
      QmpClient::connect({path_}, problem_, wake[0], [&told](double seconds) { told.push_back(seconds); }),
      nullptr);
  ASSERT_GE(told.size(), 1U) << "nothing was said of the wait";
  EXPECT_GT(told.front(), 0.3);
  EXPECT_LT(told.back(), 10);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));  // of ten
  EXPECT_NE(problem_.find("ended by a signal"), std::string::npos) << problem_;
  signal.join();
  for (const int fd : {wake[0], wake[1], listener}) ::close(fd);
}

// This very process listens, and it is no QEMU.
TEST_F(QmpClientTest, the_command_line_is_that_of_the_listener) {
  play(kGreeting, {"{\"return\": {}}\r\n"});
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  EXPECT_EQ(client->started_stopped(), std::nullopt);
}

TEST_F(QmpClientTest, an_answer_without_end_ends_the_talk) {
  play(kGreeting, {"{\"return\": {}}\r\n", std::string(QmpLines::kLineMax + 1, 'x')});
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  std::string result;
  EXPECT_NE(client->command("query-x", "", result).find("longer than"), std::string::npos);
}

TEST_F(QmpClientTest, a_name_longer_than_a_sockets_is_refused) {
  EXPECT_EQ(QmpClient::connect({"/tmp/" + std::string(200, 'a')}, problem_), nullptr);
  EXPECT_NE(problem_.find("longer than a UNIX socket"), std::string::npos) << problem_;
}

TEST_F(QmpClientTest, nobody_there_says_how_to_start_it) {
  EXPECT_EQ(connect(), nullptr);
  EXPECT_NE(problem_.find("-qmp unix:"), std::string::npos) << problem_;
}

TEST_F(QmpClientTest, another_users_socket_is_refused_before_a_byte_is_said) {
  play(kGreeting, {"{\"return\": {}}\r\n"});
  EXPECT_EQ(QmpClient::connect({path_, SocketAccess{path_, ::geteuid() + 1}}, problem_), nullptr);
  EXPECT_NE(problem_.find("only root may name it"), std::string::npos) << problem_;
  qemu_.join();
  EXPECT_TRUE(lines_.empty());
}

}  // namespace
}  // namespace migrx

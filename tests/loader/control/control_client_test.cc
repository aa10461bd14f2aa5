#include "loader/control/control_client.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "tests/loader/control/socket_folder.h"

namespace migrx {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr const char* kGreeting =
    "{\"migrx\": {\"version\": \"9.9\", \"protocol\": 1, \"capabilities\": []}}\n";

// A daemon that says what a test wants.
class Script {
 public:
  Script(const std::string& path, std::function<void(int)> says)
      : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_un address = test::unix_address(path);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    thread_ = std::thread([this, says = std::move(says)] {
      const Descriptor client(::accept(listener_.get(), nullptr, nullptr));
      says(client.get());
    });
  }
  ~Script() { thread_.join(); }
  Script(const Script&) = delete;
  Script& operator=(const Script&) = delete;

 private:
  Descriptor listener_;
  std::thread thread_;
};

void say(int client, const std::string& text) {
  EXPECT_TRUE(test::send_with(client, text, {}));
}

std::string hear(int client) {
  std::string line;
  for (char c = 0; ::recv(client, &c, 1, 0) == 1 && c != '\n';) line.push_back(c);
  return line;
}

class ControlClientTest : public ::testing::Test {
 protected:
  std::unique_ptr<ControlClient> connect() { return ControlClient::connect(path_, problem_); }
  test::SocketFolder folder_;
  const std::string path_ = folder_ / "control";
  std::string problem_;
};

TEST_F(ControlClientTest, asks_and_is_answered) {
  const Script script(path_, [](int client) {
    say(client, kGreeting);
    const Json request = Json::parse(hear(client));
    EXPECT_EQ(request["execute"], "query-session");
    EXPECT_EQ(request["arguments"], Json::parse(R"({"id": "s1"})"));
    say(client, "{\"event\": \"ROUND\", \"data\": {\"id\": \"s1\"}}\n{\"return\": {\"x\"");
    say(client, ": 1}, \"id\": " + request["id"].dump() + "}\n");
  });
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  EXPECT_EQ(client->version(), "9.9");
  const ControlAnswer answer = client->call("query-session", {{"id", "s1"}});
  EXPECT_EQ(std::get<Json>(answer), Json::parse(R"({"x": 1})"));
}

TEST_F(ControlClientTest, events_and_answers_come_as_they_were_sent) {
  const Script script(path_, [](int client) {
    say(client, kGreeting);
    const Json request = Json::parse(hear(client));
    say(client,
        "{\"event\": \"READY\", \"data\": {\"id\": \"s1\"}}\n\n7\nnonsense\n{\"error\": {\"class\": "
        "\"NoRoom\", "
        "\"desc\": \"full\"}, \"id\": " +
            request["id"].dump() + "}\n");
  });
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  const uint64_t number = client->send("session-add", Json::object());
  EXPECT_NE(number, 0U);
  const auto first = client->next(5000);
  ASSERT_TRUE(std::holds_alternative<ControlEvent>(first));
  EXPECT_EQ(std::get<ControlEvent>(first).name, "READY");
  const auto second = client->next(5000);
  ASSERT_TRUE(std::holds_alternative<ControlReply>(second));
  EXPECT_EQ(std::get<ControlReply>(second).number, number);
  EXPECT_EQ(std::get<ControlError>(std::get<ControlReply>(second).answer).sentence, "full");
}

TEST_F(ControlClientTest, why_the_daemon_ends_the_conversation_is_heard) {
  const Script script(path_, [](int client) {
    say(client, kGreeting);
    (void)hear(client);
    say(client, "{\"error\": {\"class\": \"MalformedRequest\", \"desc\": \"too long\"}}\n");
  });
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  EXPECT_EQ(std::get<ControlError>(client->call("x", Json::object())).sentence, "too long");
  EXPECT_NE(std::get<ControlError>(client->call("x", Json::object())).sentence.find("closed the connection"),
            std::string::npos);
  EXPECT_TRUE(client->gone());
  EXPECT_EQ(client->send("x", Json::object()), 0U);
}

TEST_F(ControlClientTest, whoever_wakes_it_is_not_kept_waiting) {
  const Script script(path_, [](int client) {
    say(client, kGreeting);
    (void)hear(client);
  });
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  const Descriptor wake(::eventfd(1, EFD_CLOEXEC));
  const auto began = steady_clock::now();
  EXPECT_TRUE(std::holds_alternative<std::monostate>(client->next(5000, wake.get())));
  EXPECT_TRUE(std::holds_alternative<std::monostate>(client->next(10)));
  EXPECT_LT(steady_clock::now() - began, milliseconds(2000));
  EXPECT_FALSE(client->gone());
}

TEST_F(ControlClientTest, what_is_no_daemon_is_refused_with_what_it_is) {
  EXPECT_EQ(connect(), nullptr);
  EXPECT_NE(problem_.find("no daemon listens there"), std::string::npos);
  EXPECT_EQ(ControlClient::connect(std::string(200, 'x'), problem_), nullptr);
  for (const auto& [greeting, why] : {std::pair{"{\"QMP\": {}}\n", "no daemon of migrx greets"},
                                      {"hello\n", "no daemon of migrx greets"},
                                      {"[]\n", "no daemon of migrx greets"},
                                      {"{\"migrx\": {\"protocol\": 2}}\n", "another protocol"},
                                      {"{\"migrx\": 7}\n", "another protocol"},
                                      {"{\"mig", "before it greeted"}}) {
    std::filesystem::remove(path_);
    const Script script(path_, [text = std::string(greeting)](int client) { say(client, text); });
    EXPECT_EQ(connect(), nullptr) << greeting;
    EXPECT_NE(problem_.find(why), std::string::npos) << problem_;
  }
}

TEST_F(ControlClientTest, descriptors_go_with_the_request_and_stay) {
  const Descriptor file = test::memory_file();
  const Script script(path_, [](int client) {
    say(client, kGreeting);
    std::array<char, 1000> bytes;
    iovec part{bytes.data(), bytes.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(2 * sizeof(int))> control;
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    EXPECT_GT(::recvmsg(client, &message, MSG_CMSG_CLOEXEC), 0);
    const cmsghdr* const header = CMSG_FIRSTHDR(&message);
    ASSERT_NE(header, nullptr);
    EXPECT_EQ(header->cmsg_len, CMSG_LEN(2 * sizeof(int)));
    std::array<int, 2> fds{};
    std::memcpy(fds.data(), CMSG_DATA(header), sizeof fds);
    for (const int fd : fds) ::close(fd);
  });
  const auto client = connect();
  ASSERT_NE(client, nullptr) << problem_;
  EXPECT_NE(client->send("x", Json::object(), {file.get(), file.get()}), 0U);
  EXPECT_EQ(::fcntl(file.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(client->send("x", Json::object(), {12345}), 0U);  // no such descriptor
}

}  // namespace
}  // namespace migrx

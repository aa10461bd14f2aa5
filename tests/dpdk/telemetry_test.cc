// Over DPDK's socket, as dpdk-telemetry.py asks.
#include "dataplane/dpdk/telemetry.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "tests/dpdk/dpdk_rig.h"

namespace migrx {
namespace {

using Commands = std::vector<std::pair<std::string, std::string>>;

class Client {
 public:
  Client() : fd_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    const std::string path = "/var/run/dpdk/migrx-test-" + std::to_string(::getpid()) + "/dpdk_telemetry.v2";
    std::memcpy(to.sun_path, path.c_str(), std::min(path.size() + 1, sizeof to.sun_path - 1));
    connected_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
    if (connected_) (void)receive();  // who it is
  }
  ~Client() { ::close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  [[nodiscard]] bool connected() const { return connected_; }
  std::string ask(const std::string& command) {
    EXPECT_EQ(::send(fd_, command.data(), command.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(command.size()));
    return receive();
  }

 private:
  std::string receive() {
    std::string text(32 << 10, '\0');
    const ssize_t n = ::recv(fd_, text.data(), text.size(), 0);
    text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return text;
  }
  int fd_;
  bool connected_ = false;
};

TEST(Telemetry, answers_with_what_was_published_last_and_nothing_after_its_end) {
  Client client;
  ASSERT_TRUE(client.connected()) << "the tests' EAL has no telemetry socket";
  {
    Telemetry telemetry(Commands{{"/migrx/test", "A page."}, {"/migrx/other", "Another."}});
    EXPECT_EQ(client.ask("/migrx/test"), "{\"/migrx/test\":{}}");
    telemetry.publish(
        {{"/migrx/test", {{"", {{"rate", uint64_t{7}}}}, {"cpu 3", {{"role", std::string("poll")}}}}}});
    EXPECT_EQ(client.ask("/migrx/test"), "{\"/migrx/test\":{\"rate\":7,\"cpu_3\":{\"role\":\"poll\"}}}");
    EXPECT_EQ(client.ask("/migrx/test,cpu_3"), "{\"/migrx/test\":{\"cpu_3\":{\"role\":\"poll\"}}}");
    EXPECT_EQ(client.ask("/migrx/test,nobody"), "{\"/migrx/test\":{}}");
    EXPECT_EQ(client.ask("/migrx/other"), "{\"/migrx/other\":{}}");
    EXPECT_NE(client.ask("/").find("/migrx/test"), std::string::npos);
  }
  EXPECT_EQ(client.ask("/migrx/test"), "{\"/migrx/test\":{}}");
  Telemetry again(Commands{{"/migrx/test", "A page."}});  // registered once before
  again.publish({{"/migrx/test", {{"", {{"rate", uint64_t{8}}}}}}});
  EXPECT_EQ(client.ask("/migrx/test"), "{\"/migrx/test\":{\"rate\":8}}");
}

// More than DPDK has room for: the answer is shorter, and still one.
TEST(Telemetry, what_has_no_room_is_left_out) {
  Client client;
  ASSERT_TRUE(client.connected());
  Telemetry telemetry(Commands{{"/migrx/test", "A page."}});
  TelemetryPage page{"/migrx/test", {}};
  TelemetryFields many;
  for (int i = 0; i < 400; ++i) many.emplace_back("field_" + std::to_string(i), uint64_t{1});
  page.rows.emplace_back("", std::move(many));
  telemetry.publish({page});
  EXPECT_NE(client.ask("/migrx/test").find("\"field_0\":1"), std::string::npos);
  page.rows = {
      {"", {{std::string(500, 'n'), uint64_t{1}}, {"text", std::string(5000, 't')}, {"last", uint64_t{2}}}}};
  telemetry.publish({page});
  EXPECT_NE(client.ask("/migrx/test").find("\"last\":2"), std::string::npos);
}

}  // namespace
}  // namespace migrx

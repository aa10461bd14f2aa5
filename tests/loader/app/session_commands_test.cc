#include "loader/app/session_commands.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "loader/control/control_socket.h"
#include "tests/loader/control/socket_folder.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

class FakeDaemon : public ControlService {
 public:
  ControlAnswer execute(ControlRequest& request) override {
    if (request.command == "query-sessions")
      return Json::parse(
          R"([{"id": "s1", "state": "precopy", "port": 49152, "uid": 0, "progress": "a line"}])");
    if (request.command == "session-cancel" && request.arguments == Json{{"id", "s1"}})
      return Json{{"answer", "end"}, {"text", "ending; the guest stays at the source"}};
    return ControlError{control_class::kNotFound, "there is no session " + request.arguments.dump()};
  }
};

class SessionCommandsTest : public ::testing::Test {
 protected:
  // Exit status; output_ has what it printed.
  int run(std::vector<std::string> words) {
    CLI::App app;
    int status = -1;
    add_list_command(app, status);
    add_cancel_command(app, status);
    std::reverse(words.begin(), words.end());
    std::atomic<bool> end{false};
    std::thread server([&] {
      FakeDaemon daemon;
      ControlSocket socket({folder_ / "control", "", "1"}, daemon);
      serving_ = true;
      while (!end) {
        (void)socket.do_work();
        pollfd wake{socket.wake_fd(), POLLIN, 0};
        (void)::poll(&wake, 1, 5);
      }
    });
    while (!serving_) std::this_thread::yield();
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    app.parse(words);
    output_ = ::testing::internal::GetCapturedStdout();
    errors_ = ::testing::internal::GetCapturedStderr();
    end = true;
    server.join();
    serving_ = false;
    return status;
  }
  test::SocketFolder folder_;
  std::atomic<bool> serving_{false};
  std::string output_;
  std::string errors_;
};

TEST_F(SessionCommandsTest, list_for_people_and_for_programs) {
  EXPECT_EQ(run({"list", "--via", folder_ / "control"}), 0);
  EXPECT_EQ(output_, "ID  STATE    PORT   UID  PROGRESS\ns1  precopy  49152  0    a line\n");
  EXPECT_EQ(run({"list", "--json", "--via", folder_ / "control"}), 0);
  EXPECT_EQ(Json::parse(output_)[0]["port"], 49152);
}

TEST_F(SessionCommandsTest, cancel_tells_what_the_daemon_does) {
  EXPECT_EQ(run({"cancel", "s1", "--via", folder_ / "control"}), 0);
  EXPECT_EQ(output_, "ending; the guest stays at the source\n");
  EXPECT_EQ(run({"cancel", "s2", "--via", folder_ / "control"}), 1);
  EXPECT_NE(errors_.find("there is no session"), std::string::npos);
}

TEST_F(SessionCommandsTest, without_a_daemon) {
  EXPECT_EQ(run({"list", "--via", folder_ / "none"}), 2);
  EXPECT_NE(errors_.find("no daemon listens there"), std::string::npos);
  EXPECT_EQ(run({"cancel", "s1", "--via", folder_ / "none"}), 2);
}

TEST(SessionTable, whatever_the_daemon_says_is_printable) {
  EXPECT_EQ(session_table(Json::array()), "ID  STATE  PORT  UID  PROGRESS\n");
  EXPECT_EQ(session_table(7), "ID  STATE  PORT  UID  PROGRESS\n");
  const std::string text =
      session_table(Json::parse(R"([7, {"id": "a\u001b[2J", "state": {"x": 1}, "port": null}])"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_NE(text.find("{\"x\":1}"), std::string::npos);
}

}  // namespace
}  // namespace migrx

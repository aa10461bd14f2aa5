#include "loader/app/receive_via.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>

#include "loader/app/session_arguments.h"
#include "loader/control/control_socket.h"
#include "tests/loader/control/socket_folder.h"

namespace migrx {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A daemon with one migration, whose state the test sets.
class FakeDaemon : public ControlService {
 public:
  explicit FakeDaemon(const std::string& path) : socket_({path, "", "1.2.3"}, *this) {}

  ControlAnswer execute(ControlRequest& request) override {
    if (request.command == "session-add") {
      SessionArguments arguments;
      if (auto error =
              parse_session_arguments(request.arguments, request.files.size(), request.peer, arguments))
        return *error;
      added = arguments.options;
      files = request.files.size();
      return Json{{"id", "s1"}, {"port", 49152}};
    }
    if (request.command == "session-cancel") {
      ++cancelled;
      if (cancelled == ends_with_cancel)
        session = {{"state", "done"},
                   {"outcome", "cancelled"},
                   {"exit-status", 1},
                   {"summary", "cancelled: by a signal"}};
      return Json{{"answer", "end"}, {"text", "SIGTERM: ending; the guest stays at the source"}};
    }
    if (request.command == "query-session") {
      ++asked;
      if (forgotten) return ControlError{control_class::kNotFound, "there is no session s1"};
      return session;
    }
    return ControlError{control_class::kCommandNotFound, request.command};
  }
  // Serves until `done`, some seconds at most.
  bool serve(const std::function<bool()>& done) {
    const auto until = steady_clock::now() + milliseconds(8000);
    while (!done() && steady_clock::now() < until) {
      (void)socket_.do_work();
      pollfd wake{socket_.wake_fd(), POLLIN, 0};
      (void)::poll(&wake, 1, 5);
    }
    return done();
  }
  void event(const char* name) {
    socket_.event(name, {{"id", "s1"}, {"address", "192.0.2.1"}, {"port", 49152}});
  }
  std::size_t clients() { return socket_.clients(); }

  Json session = {{"state", "preparing"}};
  ReceiveOptions added;
  std::size_t files = 0;
  int asked = 0;
  int cancelled = 0;
  int ends_with_cancel = 1;
  bool forgotten = false;

 private:
  ControlSocket socket_;
};

class ReceiveViaTest : public ::testing::Test {
 protected:
  void SetUp() override { daemon_ = std::make_unique<FakeDaemon>(path_); }
  void TearDown() override {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
  }
  // `migrx receive --via … ` in a process of its own.
  void start(const std::string& line) {
    child_ = ::fork();
    if (child_ != 0) return;
    const int out = ::open(output_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    CLI::App app;
    ReceiveOptions options;
    std::string socket;
    add_receive_options(app, options);
    add_via_option(app, socket);
    app.parse("--via " + path_ + " " + line);
    const int status = receive_via(socket, app, options);
    std::fflush(nullptr);
    std::_Exit(status);
  }
  bool ended() {
    if (child_ <= 0) return true;
    int status = 0;
    if (::waitpid(child_, &status, WNOHANG) != child_) return false;
    child_ = 0;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return true;
  }
  std::string output() {
    std::ifstream file(output_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  bool says(const std::string& text) { return output().find(text) != std::string::npos; }

  test::SocketFolder folder_;
  const std::string path_ = folder_ / "control";
  const std::string output_ = folder_ / "output";
  std::unique_ptr<FakeDaemon> daemon_;
  pid_t child_ = 0;
  int status_ = -1;
};

TEST_F(ReceiveViaTest, a_migration_from_ready_to_its_report) {
  start("--no-handoff --ram mem=/dev/shm/x,size=64M --multifd-channels 3 --report " +
        (folder_ / "report.json"));
  ASSERT_TRUE(daemon_->serve([&] { return daemon_->asked == 1; }));
  EXPECT_EQ(daemon_->added.multifd_channels, 3U);
  EXPECT_EQ(daemon_->added.ram, std::vector<std::string>{"mem=/dev/shm/x,size=64M"});
  daemon_->session = {{"state", "ready"}};
  daemon_->event("READY");
  ASSERT_TRUE(daemon_->serve([&] { return says("ready: listening on 192.0.2.1 port 49152"); }));
  daemon_->session = {{"state", "precopy"}, {"progress", "  1.0s precopy"}, {"warnings", {"a warning"}}};
  daemon_->event("ROUND");
  ASSERT_TRUE(daemon_->serve([&] { return says("precopy"); }));
  daemon_->session = {{"state", "done"},           {"outcome", "complete"},
                      {"exit-status", 0},          {"summary", "complete: 1"},
                      {"warnings", {"a warning"}}, {"report", {{"format", 1}, {"outcome", "complete"}}}};
  daemon_->event("COMPLETED");
  ASSERT_TRUE(daemon_->serve([&] { return ended(); }));
  EXPECT_EQ(status_, 0);
  EXPECT_TRUE(says("complete: 1"));
  const std::string text = output();
  EXPECT_EQ(text.find("warning: a warning"), text.rfind("warning: a warning"));
  std::ifstream report(folder_ / "report.json");
  EXPECT_EQ(Json::parse(report), daemon_->session["report"]);
}

TEST_F(ReceiveViaTest, refused_before_anything_begins) {
  start("--no-handoff --capability x-ignore-shared");
  ASSERT_TRUE(daemon_->serve([&] { return ended(); }));
  EXPECT_EQ(status_, 2);
  EXPECT_TRUE(says("x-ignore-shared is not supported"));
  start("--no-handoff --mtu 9000");
  ASSERT_TRUE(daemon_->serve([&] { return ended(); }));
  EXPECT_EQ(status_, 2);
  EXPECT_TRUE(says("--mtu belongs to the host"));
  start("--no-handoff --report " + (folder_ / "none") + "/report.json");
  ASSERT_TRUE(daemon_->serve([&] { return ended(); }));
  EXPECT_EQ(status_, 2);
  EXPECT_EQ(daemon_->asked, 0);
}

TEST_F(ReceiveViaTest, the_exit_status_is_the_daemons) {
  for (const int status : {1, 2, 3}) {
    daemon_->session = {
        {"state", "done"}, {"outcome", "failed"}, {"exit-status", status}, {"summary", "failed"}};
    start("--no-handoff");
    ASSERT_TRUE(daemon_->serve([&] { return ended(); }));
    EXPECT_EQ(status_, status);
  }
}

TEST_F(ReceiveViaTest, signals_are_told_and_the_daemon_decides) {
  daemon_->session = {{"state", "switchover"}};
  daemon_->ends_with_cancel = 2;
  start("--no-handoff");
  ASSERT_TRUE(daemon_->serve([&] { return daemon_->asked > 0; }));
  ::kill(child_, SIGTERM);
  ASSERT_TRUE(daemon_->serve([&] { return says("the guest stays at the source"); }));
  EXPECT_EQ(daemon_->cancelled, 1);
  EXPECT_FALSE(ended());
  ::kill(child_, SIGINT);
  ASSERT_TRUE(daemon_->serve([&] { return ended(); }));
  EXPECT_EQ(daemon_->cancelled, 2);
  EXPECT_EQ(status_, 1);
  EXPECT_TRUE(says("cancelled: by a signal"));
}

TEST_F(ReceiveViaTest, a_daemon_that_dies) {
  daemon_->session = {{"state", "precopy"}};
  start("--no-handoff");
  ASSERT_TRUE(daemon_->serve([&] { return daemon_->asked > 0; }));
  daemon_.reset();
  const auto until = steady_clock::now() + milliseconds(5000);
  while (!ended() && steady_clock::now() < until) ::usleep(10'000);
  EXPECT_EQ(status_, 1);
  EXPECT_TRUE(says("ask it (query-migrate) who has the guest"));
}

TEST_F(ReceiveViaTest, a_daemon_that_has_forgotten_it) {
  start("--no-handoff");
  ASSERT_TRUE(daemon_->serve([&] { return daemon_->asked == 1; }));
  daemon_->forgotten = true;
  daemon_->event("FAILED");
  ASSERT_TRUE(daemon_->serve([&] { return ended(); }));
  EXPECT_EQ(status_, 1);
  EXPECT_TRUE(says("nothing has begun"));
}

TEST_F(ReceiveViaTest, without_a_daemon) {
  daemon_.reset();
  start("--no-handoff");
  const auto until = steady_clock::now() + milliseconds(5000);
  while (!ended() && steady_clock::now() < until) ::usleep(10'000);
  EXPECT_EQ(status_, 2);
  EXPECT_TRUE(says("no daemon listens there"));
}

TEST_F(ReceiveViaTest, a_client_that_is_killed_leaves_the_migration_alone) {
  start("--no-handoff");
  ASSERT_TRUE(daemon_->serve([&] { return daemon_->asked > 0; }));
  ::kill(child_, SIGKILL);
  ASSERT_TRUE(daemon_->serve([&] { return daemon_->clients() == 0; }));
  EXPECT_EQ(daemon_->cancelled, 0);
}

TEST_F(ReceiveViaTest, a_file_that_is_open_goes_with_the_request) {
  const int fd = ::memfd_create("guest", 0);
  daemon_->session = {{"state", "done"}, {"outcome", "complete"}, {"exit-status", 0}};
  start("--no-handoff --ram mem=fd:" + std::to_string(fd) + ",size=1M");
  ASSERT_TRUE(daemon_->serve([&] { return ended(); }));
  EXPECT_EQ(status_, 0);
  EXPECT_EQ(daemon_->files, 1U);
  EXPECT_EQ(daemon_->added.ram, std::vector<std::string>{"mem=fd:0,size=1M"});
  ::close(fd);
}

TEST_F(ReceiveViaTest, one_line_when_the_source_may_connect) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const Descriptor reader(pipe[0]);
  start("--no-handoff --quiet --ready-fd " + std::to_string(pipe[1]));
  ::close(pipe[1]);
  ASSERT_TRUE(daemon_->serve([&] { return daemon_->asked == 1; }));
  daemon_->session = {{"state", "ready"}};
  daemon_->event("READY");
  pollfd waits{reader.get(), POLLIN, 0};
  ASSERT_TRUE(daemon_->serve([&] { return ::poll(&waits, 1, 0) == 1; }));
  std::array<char, 100> bytes{};
  const ssize_t n = ::read(reader.get(), bytes.data(), bytes.size());
  EXPECT_EQ(std::string(bytes.data(), static_cast<std::size_t>(n)),
            "ready: listening on 192.0.2.1 port 49152\n");
  EXPECT_EQ(output(), "");
}

}  // namespace
}  // namespace migrx

#include "loader/control/peer_rights.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <fstream>
#include <functional>

#include "tests/loader/control/socket_folder.h"

namespace migrx {
namespace {

constexpr uid_t kNobody = 65534;

ControlPeer nobody() {
  ControlPeer peer;
  peer.uid = kNobody;
  peer.gid = kNobody;
  return peer;
}

// A child as another user, that has done `what` and waits.
class OtherUser {
 public:
  OtherUser(uid_t user, const std::function<void()>& what) {
    std::array<int, 2> ready{};
    EXPECT_EQ(::pipe(ready.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      if (user != 0 && (::setgid(user) != 0 || ::setuid(user) != 0)) std::_Exit(1);
      what();
      (void)!::write(ready[1], "x", 1);
      for (;;) ::pause();
    }
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~OtherUser() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  OtherUser(const OtherUser&) = delete;
  OtherUser& operator=(const OtherUser&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

// Leaks it into the child.
void listen_at(const std::string& path) {
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  const sockaddr_un address = test::unix_address(path);
  if (::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket, 4) != 0)
    std::_Exit(1);
}

class PeerRightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    ASSERT_EQ(::chmod(folder_.path().c_str(), 0777), 0);
    std::ofstream(folder_ / "secret") << "x";
    ASSERT_EQ(::chmod((folder_ / "secret").c_str(), 0600), 0);
  }
  int open_as(const ControlPeer& peer, const std::string& path) {
    int error = 0;
    EXPECT_EQ(run_as(peer,
                     [&] {
                       const Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
                       error = file ? 0 : errno;
                     }),
              "");
    return error;
  }
  test::SocketFolder folder_;
};

TEST_F(PeerRightsTest, what_the_peer_may_not_is_refused_and_this_process_keeps_its_own) {
  EXPECT_EQ(open_as(nobody(), folder_ / "secret"), EACCES);
  EXPECT_EQ(open_as(this_process(), folder_ / "secret"), 0);
  std::ofstream mine(folder_ / "secret");
  EXPECT_TRUE(mine.is_open());
}

TEST_F(PeerRightsTest, its_groups_count_and_ours_do_not) {
  ASSERT_EQ(::chown((folder_ / "secret").c_str(), 0, 4321), 0);
  ASSERT_EQ(::chmod((folder_ / "secret").c_str(), 0660), 0);
  ControlPeer member = nobody();
  EXPECT_EQ(open_as(member, folder_ / "secret"), EACCES);
  member.groups = {4321};
  EXPECT_EQ(open_as(member, folder_ / "secret"), 0);
  ASSERT_EQ(::chown((folder_ / "secret").c_str(), 0, 0), 0);  // root's group, of which this process is
  EXPECT_EQ(open_as(member, folder_ / "secret"), EACCES);
}

TEST_F(PeerRightsTest, no_capability_is_left_and_nobody_can_kill_the_thread) {
  uint64_t capabilities = 1;
  uid_t real = 1;
  int dumpable = 0;
  EXPECT_EQ(run_as(nobody(),
                   [&] {
                     std::ifstream status("/proc/thread-self/status");
                     for (std::string line; std::getline(status, line);)
                       if (line.starts_with("CapEff:"))
                         capabilities = std::stoull(line.substr(7), nullptr, 16);
                     real = static_cast<uid_t>(::syscall(SYS_getuid));
                     dumpable = ::prctl(PR_GET_DUMPABLE);
                   }),
            "");
  EXPECT_EQ(capabilities, 0U);
  EXPECT_EQ(real, 0U);
  EXPECT_EQ(dumpable, 1);
}

TEST_F(PeerRightsTest, a_process_that_is_not_root_says_that_it_cannot) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(1234) != 0 || ::setuid(1234) != 0) std::_Exit(2);
    bool ran = false;
    const bool refused = !run_as(nobody(), [&] { ran = true; }).empty();
    ControlPeer self = this_process();
    const bool own = run_as(self, [] {}).empty();
    std::_Exit(refused && !ran && own ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ControlPeer unknown;
  EXPECT_NE(run_as(unknown, [] {}), "");
}

TEST_F(PeerRightsTest, a_socket_is_reached_that_the_peer_could_reach_and_that_is_its_own) {
  std::string problem;
  const OtherUser theirs(kNobody, [&] { listen_at(folder_ / "theirs"); });
  EXPECT_TRUE(connect_as(nobody(), folder_ / "theirs", problem)) << problem;
  EXPECT_TRUE(connect_as(this_process(), folder_ / "theirs", problem)) << problem;
  // Root's, open to everybody: whoever listens there would see root.
  const OtherUser roots(0, [&] {
    listen_at(folder_ / "roots");
    (void)::chmod((folder_ / "roots").c_str(), 0666);
  });
  EXPECT_FALSE(connect_as(nobody(), folder_ / "roots", problem));
  EXPECT_NE(problem.find("another user listens there"), std::string::npos) << problem;
  ASSERT_EQ(::chmod((folder_ / "roots").c_str(), 0600), 0);
  EXPECT_FALSE(connect_as(nobody(), folder_ / "roots", problem));
  EXPECT_NE(problem.find("Permission denied"), std::string::npos) << problem;
  EXPECT_FALSE(connect_as(nobody(), folder_ / "none", problem));
  EXPECT_FALSE(connect_as(nobody(), "relative", problem));
  EXPECT_FALSE(connect_as(nobody(), "/" + std::string(200, 'x'), problem));
  EXPECT_FALSE(connect_as(nobody(), folder_ / "secret", problem));
}

TEST_F(PeerRightsTest, a_process_is_the_peers_when_it_is_in_every_way) {
  const OtherUser theirs(kNobody, [] {});
  EXPECT_TRUE(owned_by(nobody(), theirs.pid()));
  EXPECT_TRUE(owned_by(this_process(), theirs.pid()));
  EXPECT_FALSE(owned_by(nobody(), ::getpid()));
  // As a set-user-ID program that this user started.
  const OtherUser mixed(0, [] { (void)::setresuid(kNobody, 0, 0); });
  EXPECT_FALSE(owned_by(nobody(), mixed.pid()));
  EXPECT_FALSE(owned_by(nobody(), 0));
  EXPECT_FALSE(owned_by(nobody(), -1));
  EXPECT_FALSE(owned_by(this_process(), 1 << 30));
}

}  // namespace
}  // namespace migrx

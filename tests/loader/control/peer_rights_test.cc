#include "loader/control/peer_rights.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <fstream>

#include "tests/loader/control/other_user.h"

namespace migrx {
namespace {

using test::kNobody;

ControlPeer nobody() {
  ControlPeer peer;
  peer.uid = kNobody;
  peer.gid = kNobody;
  return peer;
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

}  // namespace
}  // namespace migrx

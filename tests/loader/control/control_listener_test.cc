#include "loader/control/control_listener.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fstream>
#include <stdexcept>

#include "tests/loader/control/socket_folder.h"

namespace migrx {
namespace {

std::string problem(const std::string& path, const std::string& group = "") {
  try {
    const ControlListener listener(path, group);
  } catch (const std::runtime_error& refused) {
    return refused.what();
  }
  return "";
}

mode_t mode_of(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

class ControlListenerTest : public ::testing::Test {
 protected:
  test::SocketFolder folder_;
  const std::string path_ = folder_ / "control";
};

TEST_F(ControlListenerTest, group_members_alone_can_connect_and_the_path_goes_with_it) {
  {
    const mode_t before = ::umask(0);
    const ControlListener listener(path_, "");
    ::umask(before);
    EXPECT_EQ(mode_of(path_), 0660U);
    EXPECT_TRUE(test::connect_to(path_));
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_EQ(problem(path_), "");  // and can be taken again
}

TEST_F(ControlListenerTest, a_group_by_name_or_number) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const ControlListener listener(path_, "65534");
  struct stat status {};
  ASSERT_EQ(::lstat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_gid, 65534U);
  EXPECT_NE(problem(folder_ / "other", "no-such-group").find("no group 'no-such-group'"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "other"));
}

TEST_F(ControlListenerTest, a_second_daemon_is_refused_and_harms_nothing) {
  const ControlListener listener(path_, "");
  EXPECT_NE(problem(path_).find("another migrx serves there"), std::string::npos);
  EXPECT_TRUE(test::connect_to(path_));
}

TEST_F(ControlListenerTest, a_dead_daemons_socket_is_replaced) {
  const pid_t child = ::fork();
  if (child == 0) {
    const ControlListener listener(path_, "");
    ::kill(::getpid(), SIGKILL);
  }
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ASSERT_TRUE(std::filesystem::exists(path_));
  const ControlListener listener(path_, "");
  EXPECT_TRUE(test::connect_to(path_));
}

TEST_F(ControlListenerTest, somebody_elses_socket_stays) {
  const Descriptor other(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = test::unix_address(path_);
  ASSERT_EQ(::bind(other.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(other.get(), 1), 0);
  EXPECT_NE(problem(path_).find("another process listens there"), std::string::npos);
  EXPECT_TRUE(test::connect_to(path_));
}

TEST_F(ControlListenerTest, a_file_or_a_link_stays) {
  std::ofstream(path_) << "precious";
  EXPECT_NE(problem(path_).find("no socket is there"), std::string::npos);
  EXPECT_EQ(std::filesystem::file_size(path_), 8U);
  std::filesystem::remove(path_);
  std::filesystem::create_symlink(folder_ / "elsewhere", path_);
  EXPECT_NE(problem(path_).find("no socket is there"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_symlink(path_));
  // Nor does the lock go through a link.
  std::filesystem::remove(path_);
  std::filesystem::remove(path_ + ".lock");
  std::filesystem::create_symlink(folder_ / "elsewhere", path_ + ".lock");
  EXPECT_NE(problem(path_), "");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "elsewhere"));
}

TEST_F(ControlListenerTest, paths_that_cannot_be_are_refused_with_what_to_do) {
  EXPECT_NE(problem("control").find("must begin with /"), std::string::npos);
  EXPECT_NE(problem(""), "");
  EXPECT_NE(problem(folder_ / std::string(120, 'x')).find("shorter than 108"), std::string::npos);
  EXPECT_NE(problem(folder_ / "none" + "/control").find("make the folder first"), std::string::npos);
}

TEST_F(ControlListenerTest, what_took_its_place_is_not_removed) {
  {
    const ControlListener listener(path_, "");
    std::filesystem::remove(path_);
    std::ofstream(path_) << "somebody else's";
  }
  EXPECT_TRUE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace migrx

#include "loader/app/inherited_descriptors.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

namespace migrx {
namespace {

class ReadyFd : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(::pipe(pipe_.data()), 0); }
  void TearDown() override {
    for (const int fd : pipe_) (void)::close(fd);
  }
  std::array<int, 2> pipe_{};
};

TEST_F(ReadyFd, none_or_one_that_was_passed_on_is_right) {
  EXPECT_EQ(ready_fd_problem(-1), "");
  EXPECT_EQ(ready_fd_problem(pipe_[1]), "");
}

// It would be the number of a file that migrx opens later, and the line would be written there.
TEST_F(ReadyFd, one_that_was_not_passed_on_is_refused) {
  ASSERT_EQ(::fcntl(pipe_[1], F_SETFD, FD_CLOEXEC), 0);
  EXPECT_NE(ready_fd_problem(pipe_[1]).find("no such descriptor was passed on"), std::string::npos);
  ASSERT_EQ(::close(pipe_[1]), 0);
  EXPECT_NE(ready_fd_problem(pipe_[1]).find("no such descriptor was passed on"), std::string::npos);
}

TEST_F(ReadyFd, the_reading_end_is_refused) {
  EXPECT_NE(ready_fd_problem(pipe_[0]).find("for reading only"), std::string::npos);
}

// Otherwise guest RAM could be descriptor 2, and an error message its first bytes.
TEST(StandardDescriptors, those_that_are_closed_are_held) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (int fd = 0; fd <= 2; ++fd) (void)::close(fd);
    hold_standard_descriptors();
    for (int fd = 0; fd <= 2; ++fd)
      if (::fcntl(fd, F_GETFD) < 0) ::_exit(1);
    ::_exit(::open("/dev/null", O_RDONLY) > 2 ? 0 : 2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace migrx

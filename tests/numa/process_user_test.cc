#include "numa/process_user.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

namespace migrx {
namespace {

// A child that becomes these users and waits.
class Child {
 public:
  Child(uid_t real, uid_t effective, uid_t saved, bool dumpable) {
    std::array<int, 2> told{};
    EXPECT_EQ(::pipe(told.data()), 0);
    process_ = ::fork();
    if (process_ == 0) {
      const bool done = ::setresuid(real, effective, saved) == 0 && ::prctl(PR_SET_DUMPABLE, dumpable) == 0;
      while (::write(told[1], &done, sizeof done) == sizeof done && done) ::pause();
      ::_exit(1);
    }
    ::close(told[1]);
    bool done = false;
    EXPECT_EQ(::read(told[0], &done, sizeof done), static_cast<ssize_t>(sizeof done));
    EXPECT_TRUE(done);
    ::close(told[0]);
  }
  ~Child() {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  [[nodiscard]] pid_t process() const { return process_; }

 private:
  pid_t process_ = -1;
};

TEST(ProcessUser, of_this_process_and_of_none) {
  EXPECT_EQ(only_user_of(::getpid()), ::getuid());
  EXPECT_EQ(users_of(0), std::nullopt);
  EXPECT_EQ(users_of(-1), std::nullopt);
  EXPECT_EQ(only_user_of(999'999'999), std::nullopt);
}

// The owner of its /proc/PID is root then.
TEST(ProcessUser, who_must_not_be_dumped_is_not_root_for_it) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const Child child(65534, 65534, 65534, false);
  EXPECT_EQ(only_user_of(child.process()), 65534U);
}

TEST(ProcessUser, who_may_become_another_has_no_only_one) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const Child child(65534, 65534, 0, true);
  EXPECT_EQ(only_user_of(child.process()), std::nullopt);
  EXPECT_EQ(users_of(child.process()), (std::array<uid_t, 4>{65534, 65534, 0, 65534}));
}

}  // namespace
}  // namespace migrx

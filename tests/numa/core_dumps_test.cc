#include "numa/core_dumps.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace migrx {
namespace {

// A process of its own: the flag stays.
template <class Steps>
int dumpable_after(const Steps& steps) {
  const pid_t child = ::fork();
  if (child == 0) {
    (void)::prctl(PR_SET_DUMPABLE, 1UL, 0UL, 0UL, 0UL);
    steps();
    ::_exit(::prctl(PR_GET_DUMPABLE));
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

TEST(CoreDumps, are_restored_as_they_were) {
  EXPECT_EQ(dumpable_after([] { restore_core_dumps(1); }), 1);
  EXPECT_EQ(dumpable_after([] {
              (void)::prctl(PR_SET_DUMPABLE, 0UL, 0UL, 0UL, 0UL);
              restore_core_dumps(1);
            }),
            1);
  EXPECT_EQ(dumpable_after([] {
              (void)::prctl(PR_SET_DUMPABLE, 0UL, 0UL, 0UL, 0UL);
              restore_core_dumps(0);
            }),
            0);
}

TEST(CoreDumps, that_were_forbidden_are_not_restored) {
  EXPECT_EQ(dumpable_after([] { forbid_core_dumps(); }), 0);
  EXPECT_EQ(dumpable_after([] {
              forbid_core_dumps();
              restore_core_dumps(1);
            }),
            0);
}

}  // namespace
}  // namespace migrx

#include "loader/session/first_error.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace migrx {
namespace {

StreamError error_at(uint64_t offset) {
  return make_error(ErrorClass::bad_stream, offset, "field", "at %u", static_cast<unsigned>(offset));
}

TEST(FirstError, the_first_is_kept) {
  FirstError error;
  EXPECT_FALSE(error.is_set());
  error.set(error_at(7));
  error.set(error_at(8));
  EXPECT_TRUE(error.is_set());
  EXPECT_TRUE(error.is_coming());
  EXPECT_EQ(error.get().offset, 7U);
  EXPECT_FALSE(error.shut());
  EXPECT_FALSE(error.is_shut());
}

TEST(FirstError, behind_a_shut_door_only_the_one_who_shut_it_sets_one) {
  FirstError error;
  EXPECT_TRUE(error.shut());
  EXPECT_TRUE(error.shut());
  error.set(error_at(7));
  EXPECT_TRUE(error.is_shut());
  EXPECT_FALSE(error.is_set());
  EXPECT_FALSE(error.is_coming());
  error.overturn(error_at(9));
  EXPECT_TRUE(error.is_set());
  EXPECT_EQ(error.get().offset, 9U);
  EXPECT_FALSE(error.shut());
}

// Under TSan this also shows that who sees an error sees all of it.
TEST(FirstError, threads_agree_on_one_error_or_on_none) {
  for (int turn = 0; turn < 200; ++turn) {
    FirstError error;
    std::vector<std::thread> threads;
    for (uint64_t i = 1; i <= 2; ++i) threads.emplace_back([&error, i] { error.set(error_at(i)); });
    const bool shut = error.shut();
    const bool seen = error.is_set();
    const uint64_t offset = seen ? error.get().offset : 0;
    for (std::thread& thread : threads) thread.join();
    EXPECT_NE(shut, error.is_set());
    if (seen) {
      EXPECT_EQ(error.get().offset, offset);
      EXPECT_STREQ(error.get().text.data(), offset == 1 ? "at 1" : "at 2");
    }
  }
}

}  // namespace
}  // namespace migrx

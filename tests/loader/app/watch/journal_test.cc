#include "loader/app/watch/journal.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "numa/descriptor.h"

namespace migrx {
namespace {

TEST(Journal, lines_have_levels_when_the_stream_is_the_journal_s) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const Descriptor ours(pair[0]);
  const Descriptor theirs(pair[1]);
  struct stat file {};
  ASSERT_EQ(::fstat(ours.get(), &file), 0);
  const std::string stream = fmt::format("{}:{}", file.st_dev, file.st_ino);
  EXPECT_EQ(journal_prefix(ours.get(), 4, stream.c_str()), "<4>");
  EXPECT_EQ(journal_prefix(ours.get(), 4, nullptr), "");
  EXPECT_EQ(journal_prefix(theirs.get(), 4, stream.c_str()), "");  // redirected elsewhere
  EXPECT_EQ(journal_prefix(ours.get(), 4, "nonsense"), "");
  EXPECT_EQ(with_prefix("<4>", "one\ntwo\n"), "<4>one\n<4>two\n");
  EXPECT_EQ(with_prefix("", "one\ntwo"), "one\ntwo");
}

}  // namespace
}  // namespace migrx

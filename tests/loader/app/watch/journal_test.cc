#include "loader/app/watch/journal.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

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

TEST(Journal, an_entry_has_its_fields_and_may_have_several_lines) {
  EXPECT_EQ(journal_entry(4, "warning: x", {{"MIGRX_SESSION", "s1"}}),
            "MESSAGE=warning: x\nPRIORITY=4\nSYSLOG_IDENTIFIER=migrx\nMIGRX_SESSION=s1\n");
  const std::string two = journal_entry(6, "one\ntwo", {});
  EXPECT_EQ(two.substr(0, 8), "MESSAGE\n");
  EXPECT_EQ(two.substr(8, 8), std::string("\7\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(two.substr(16, 8), "one\ntwo\n");
  EXPECT_LT(journal_entry(6, std::string(1 << 20, 'x'), {{"A", std::string(1 << 20, 'y')}}).size(),
            100U << 10);
}

TEST(Journal, entries_go_to_its_socket_or_are_told_to_be_lost) {
  const std::string path = testing::TempDir() + "journal-" + std::to_string(::getpid());
  const JournalSocket journal(path);
  EXPECT_FALSE(journal.send("MESSAGE=x\n"));  // nobody is there
  const Descriptor socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_TRUE(journal.send("MESSAGE=x\n"));
  char got[64];
  EXPECT_EQ(::recv(socket.get(), got, sizeof got, 0), 10);
  // A journal that hangs holds nobody up.
  bool taken = true;
  for (int n = 0; n < 100'000 && taken; ++n) taken = journal.send("MESSAGE=x\n");
  EXPECT_FALSE(taken);
  ::unlink(path.c_str());
  EXPECT_FALSE(JournalSocket(std::string(200, 'x')).send("MESSAGE=x\n"));
}

}  // namespace
}  // namespace migrx

#include "loader/app/dump.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

namespace migrx {
namespace {

TEST(DumpName, is_the_blocks_own_as_far_as_a_file_may_be_called_so) {
  EXPECT_EQ(dump_name("vga.vram"), "vga.vram");
  EXPECT_EQ(dump_name("/rom@etc/acpi/tables"), "%2From@etc%2Facpi%2Ftables");
  EXPECT_EQ(dump_name(".."), "%2E.");
  EXPECT_EQ(dump_name("50%\x1b"), "50%25%1B");
}

TEST(DumpName, no_two_blocks_share_one_nor_the_device_states) {
  std::set<std::string> names{"device-state"};
  for (const char* const idstr : {"a/b", "a_b", "a%2Fb", "a%b", "device-state", "%64evice-state", ".", "%2E"})
    EXPECT_TRUE(names.insert(dump_name(idstr)).second) << idstr;
  EXPECT_EQ(dump_name(std::string(255, '/')), "");
}

class DumpTest : public ::testing::Test {
 protected:
  DumpTest() { std::filesystem::create_directories(folder_); }
  ~DumpTest() override { std::filesystem::remove_all(folder_); }
  const std::string folder_ = testing::TempDir() + "migrx-dump-" + std::to_string(::getpid());
};

TEST_F(DumpTest, every_block_has_a_file_that_nobody_else_can_read) {
  BlockTable blocks(1 << 20);
  std::vector<BlockEntry> entries;
  for (const std::string& idstr : {std::string("a/b"), std::string("a_b"), std::string(255, '/')})
    entries.push_back({idstr, kPageBytes, {}, {}});
  ASSERT_FALSE(blocks.resolve(entries));
  for (std::size_t i = 0; i < 3; ++i) *blocks.list()[i].host() = static_cast<std::byte>(i + 1);
  std::ofstream(folder_ + "/a_b") << "an older one, readable by all";
  ::chmod((folder_ + "/a_b").c_str(), 0644);
  ASSERT_EQ(dump_blocks(blocks, folder_), "");
  const char* const names[] = {"a%2Fb", "a_b", "%block-2"};
  for (int i = 0; i < 3; ++i) {
    const std::string path = folder_ + "/" + names[i];
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0) << path;
    EXPECT_EQ(status.st_mode & 0777, 0600U) << path;
    EXPECT_EQ(status.st_size, kPageBytes) << path;
    EXPECT_EQ(std::ifstream(path).get(), i + 1) << path;
  }
}

// A running guest's RAM may be called like a block of this one.
TEST_F(DumpTest, a_file_that_somebody_maps_is_not_shortened) {
  BlockTable blocks(1 << 20);
  const std::vector<BlockEntry> entries{{"a", kPageBytes, {}, {}}};
  ASSERT_FALSE(blocks.resolve(entries));
  std::ofstream(folder_ + "/a") << "another guest's";
  const int theirs = ::open((folder_ + "/a").c_str(), O_RDONLY);
  ASSERT_GE(theirs, 0);
  EXPECT_EQ(dump_blocks(blocks, folder_), "");
  char first = 0;
  EXPECT_EQ(::read(theirs, &first, 1), 1);
  EXPECT_EQ(first, 'a');
  ::close(theirs);
  EXPECT_EQ(std::ifstream(folder_ + "/a").get(), 0);
}

TEST_F(DumpTest, a_link_is_not_followed) {
  BlockTable blocks(1 << 20);
  const std::vector<BlockEntry> entries{{"a", kPageBytes, {}, {}}};
  ASSERT_FALSE(blocks.resolve(entries));
  std::filesystem::create_symlink("/dev/null", folder_ + "/a");
  EXPECT_NE(dump_blocks(blocks, folder_), "");
}

}  // namespace
}  // namespace migrx

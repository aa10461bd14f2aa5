#include "numa/guest_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace migrx {
namespace {

class GuestMemoryTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  std::unique_ptr<GuestMemory> open(const std::string& options) {
    RamSpec spec;
    problem_ = parse_ram_spec("mem=" + path_ + options, spec);
    if (!problem_.empty()) return nullptr;
    return GuestMemory::open(spec, problem_);
  }
  std::string path_ = "/dev/shm/migrx-guest-memory-test-" + std::to_string(::getpid());
  std::string problem_;
};

TEST_F(GuestMemoryTest, a_new_file_is_made_and_goes_unless_kept) {
  auto memory = open(",size=8M");
  ASSERT_NE(memory, nullptr) << problem_;
  EXPECT_TRUE(memory->made_here());
  EXPECT_EQ(memory->prefault({}, "", nullptr), "");
  EXPECT_EQ(std::filesystem::file_size(path_), 8U << 20);
  memory.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));

  memory = open(",size=8M");
  ASSERT_NE(memory, nullptr);
  memory->keep();
  memory.reset();
  EXPECT_TRUE(std::filesystem::exists(path_));
}

// Another process that maps the file, as a QEMU does.
class OtherUser {
 public:
  explicit OtherUser(const std::string& path, int flags = MAP_SHARED) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      // A grandchild: this process's own children are its helpers.
      if (::fork() != 0) std::_Exit(0);
      const int fd = ::open(path.c_str(), O_RDWR);
      struct stat st {};
      (void)::fstat(fd, &st);
      void* const map =
          ::mmap(nullptr, static_cast<std::size_t>(st.st_size), PROT_READ | PROT_WRITE, flags, fd, 0);
      ::close(fd);
      const pid_t self = ::getpid();
      if (map == MAP_FAILED || ::write(ready[1], &self, sizeof self) != sizeof self) std::_Exit(1);
      for (;;) ::pause();
    }
    ::waitpid(pid_, nullptr, 0);
    EXPECT_EQ(::read(ready[0], &pid_, sizeof pid_), static_cast<ssize_t>(sizeof pid_));
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~OtherUser() { ::kill(pid_, SIGKILL); }
  OtherUser(const OtherUser&) = delete;
  OtherUser& operator=(const OtherUser&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

TEST_F(GuestMemoryTest, what_another_process_maps_is_not_cleared_and_not_taken_for_zeros) {
  std::ofstream(path_) << std::string(1 << 20, 'x');
  const OtherUser other(path_);
  auto memory = open("");
  ASSERT_NE(memory, nullptr) << problem_;
  ASSERT_EQ(memory->users().size(), 1U);
  EXPECT_EQ(memory->users()[0].pid, other.pid());
  EXPECT_FALSE(memory->fresh());
  EXPECT_FALSE(memory->cleared());
  EXPECT_EQ(memory->prefault({}, "", nullptr), "");
  for (uint64_t i = 0; i < memory->length(); ++i) ASSERT_EQ(memory->data()[i], std::byte{'x'});
}

// A QEMU with share=off runs on the file's pages until it has written each, so it is a user as well.
TEST_F(GuestMemoryTest, a_private_mapping_is_a_users) {
  std::ofstream(path_) << std::string(1 << 20, 'x');
  const OtherUser other(path_, MAP_PRIVATE);
  auto memory = open("");
  ASSERT_NE(memory, nullptr) << problem_;
  ASSERT_EQ(memory->users().size(), 1U);
  EXPECT_EQ(memory->users()[0].pid, other.pid());
  EXPECT_FALSE(memory->cleared());
}

TEST_F(GuestMemoryTest, a_second_receiver_is_refused_and_told_by_whom) {
  auto first = open(",size=8M");
  ASSERT_NE(first, nullptr) << problem_;
  EXPECT_EQ(open(",size=8M"), nullptr);
  EXPECT_NE(problem_.find("locked"), std::string::npos) << problem_;
  EXPECT_NE(problem_.find("PID " + std::to_string(::getpid())), std::string::npos) << problem_;
  first.reset();
  EXPECT_NE(open(",size=8M"), nullptr) << problem_;
}

TEST_F(GuestMemoryTest, who_has_had_enough_waits_for_no_other_receiver) {
  auto first = open(",size=8M");
  ASSERT_NE(first, nullptr) << problem_;
  RamSpec spec;
  ASSERT_EQ(parse_ram_spec("mem=" + path_, spec), "");
  int asked = 0;
  EXPECT_EQ(GuestMemory::open(spec, problem_, [&asked] { return ++asked < 2; }), nullptr);
  EXPECT_EQ(asked, 2);
}

TEST_F(GuestMemoryTest, a_writer_that_cannot_be_seen_is_refused_unless_allowed) {
  std::ofstream(path_) << std::string(1 << 20, 'x');
  const int fd = ::open(path_.c_str(), O_RDWR);  // it maps nothing, so no search finds it
  EXPECT_EQ(open(""), nullptr);
  EXPECT_NE(problem_.find("in-use=allow"), std::string::npos) << problem_;
  EXPECT_NE(open(",in-use=allow"), nullptr) << problem_;
  ::close(fd);
  EXPECT_NE(open(""), nullptr) << problem_;
}

TEST_F(GuestMemoryTest, a_file_that_took_the_place_of_ours_is_not_removed) {
  auto memory = open(",size=8M");
  ASSERT_NE(memory, nullptr) << problem_;
  std::filesystem::remove(path_);
  std::ofstream(path_) << "somebody else's";
  memory.reset();
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(GuestMemoryTest, old_bytes_are_cleared_and_the_file_is_never_truncated) {
  std::ofstream(path_) << std::string(1 << 20, 'x');
  struct stat before {};
  ASSERT_EQ(::stat(path_.c_str(), &before), 0);
  auto memory = open("");  // its size is known
  ASSERT_NE(memory, nullptr) << problem_;
  EXPECT_FALSE(memory->made_here());
  EXPECT_TRUE(memory->cleared());
  EXPECT_EQ(memory->prefault({CpuId{0}}, "", nullptr), "");
  for (uint64_t i = 0; i < memory->length(); ++i) ASSERT_EQ(memory->data()[i], std::byte{0});
  memory.reset();
  struct stat after {};
  ASSERT_EQ(::stat(path_.c_str(), &after), 0);  // not ours to remove
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(after.st_size, 1 << 20);
}

TEST_F(GuestMemoryTest, a_sparse_file_is_fresh) {
  std::ofstream(path_).close();
  std::filesystem::resize_file(path_, 1 << 20);
  const auto memory = open("");
  ASSERT_NE(memory, nullptr) << problem_;
  EXPECT_FALSE(memory->cleared());
}

TEST_F(GuestMemoryTest, sizes_that_cannot_be_right_are_refused_with_what_to_do) {
  EXPECT_EQ(open(""), nullptr);
  EXPECT_NE(problem_.find("give its size"), std::string::npos);
  std::ofstream(path_) << std::string(4096, 'x');
  EXPECT_EQ(open(",size=8M"), nullptr);
  EXPECT_NE(problem_.find("remove the file or correct size="), std::string::npos);
  EXPECT_EQ(std::filesystem::file_size(path_), 4096U);
  for (const char* const bad : {",size=1", ",size=abc", ",size=99999999999T", ",node=x", ",colour=red"})
    EXPECT_EQ(open(bad), nullptr) << bad;
}

TEST_F(GuestMemoryTest, a_disk_is_refused) {
  path_ = std::filesystem::path("/var/tmp") / ("migrx-test-" + std::to_string(::getpid()));
  EXPECT_EQ(open(",size=1M"), nullptr);
  EXPECT_NE(problem_.find("hugetlbfs or tmpfs"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(GuestMemoryTest, a_missing_mount_names_the_command) {
  path_ = "/dev/shm/no-such-folder-here/x";
  EXPECT_EQ(open(",size=1M"), nullptr);
  EXPECT_NE(problem_.find("mount"), std::string::npos);
}

// A hugetlbfs of this test's own: a machine need not have one at its usual place.
class HugepageMemoryTest : public GuestMemoryTest {
 protected:
  void SetUp() override {
    std::string folder = "/tmp/migrx-hugetlbfs-XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    if (::mount("none", folder_.c_str(), "hugetlbfs", 0, "pagesize=2M") != 0)
      GTEST_SKIP() << "cannot mount a hugetlbfs with 2M pages: " << std::strerror(errno);
    mounted_ = true;
    path_ = folder_ + "/vm0";
  }
  void TearDown() override {
    GuestMemoryTest::TearDown();
    if (mounted_) ::umount(folder_.c_str());
    std::filesystem::remove(folder_);
  }
  std::string folder_;
  bool mounted_ = false;
};

TEST_F(HugepageMemoryTest, too_few_say_how_many_and_which_command) {
  auto memory = open(",size=4T");
  const std::string problem = memory == nullptr ? problem_ : memory->prefault({}, "", nullptr);
  EXPECT_NE(problem.find("are missing"), std::string::npos) << problem;
  EXPECT_NE(problem.find("nr_hugepages"), std::string::npos) << problem;
  memory.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(HugepageMemoryTest, a_length_that_is_no_multiple_of_a_hugepage_is_rounded_up_in_the_file_alone) {
  auto memory = open(",size=1M");
  if (memory == nullptr) GTEST_SKIP() << problem_;
  if (const std::string problem = memory->prefault({}, "", nullptr); !problem.empty())
    GTEST_SKIP() << problem;
  EXPECT_EQ(std::filesystem::file_size(path_), 2U << 20);
  std::memset(memory->data(), 1, 1 << 20);
  memory.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace migrx

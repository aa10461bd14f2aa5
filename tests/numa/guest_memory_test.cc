#include "numa/guest_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "numa/descriptor.h"

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

TEST_F(GuestMemoryTest, what_cannot_be_opened_is_refused_with_what_to_do) {
  for (const auto& [path, advice] : {std::pair{"/dev/shm", "name a file"},
                                     {"/dev/shm/no-folder-of-that-name/vm0", "mount the file system first"},
                                     {"/etc/passwd/vm0", "name a file in a folder that exists"},
                                     {"/proc/version", "must lie on hugetlbfs or tmpfs"}}) {
    RamSpec spec;
    ASSERT_EQ(parse_ram_spec(std::string("mem=") + path + ",size=8M", spec), "");
    EXPECT_EQ(GuestMemory::open(spec, problem_), nullptr);
    EXPECT_NE(problem_.find(advice), std::string::npos) << problem_;
  }
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

// ---- A file that is given open ----

class GivenMemoryTest : public GuestMemoryTest {
 protected:
  // Waits for nobody who has it.
  std::unique_ptr<GuestMemory> take(int descriptor, const std::string& options = "") {
    RamSpec spec;
    problem_ = parse_ram_spec("mem=fd:0" + options, spec, 1);
    if (!problem_.empty()) return nullptr;
    spec.given = GivenFile{descriptor};
    return GuestMemory::open(spec, problem_, [] { return false; });
  }
  Descriptor file(int flags, off_t bytes = 1 << 20) {
    const Descriptor maker(::open(path_.c_str(), O_RDWR | O_CREAT, 0600));
    EXPECT_EQ(::ftruncate(maker.get(), bytes), 0);
    return Descriptor(::open(path_.c_str(), flags));
  }
};

TEST_F(GivenMemoryTest, is_taken_as_it_is_and_never_removed) {
  const Descriptor given = file(O_RDWR);
  auto memory = take(given.get());
  ASSERT_NE(memory, nullptr) << problem_;
  EXPECT_EQ(memory->length(), 1U << 20);
  EXPECT_EQ(memory->id(), file_id_at(path_));
  EXPECT_FALSE(memory->made_here());
  EXPECT_TRUE(memory->may_shrink());
  memory->data()[5] = std::byte{7};
  std::byte byte{0};
  EXPECT_EQ(::pread(given.get(), &byte, 1, 5), 1);
  EXPECT_EQ(byte, std::byte{7});
  memory.reset();
  EXPECT_TRUE(std::filesystem::exists(path_));
  EXPECT_EQ(::fcntl(given.get(), F_GETFD), 0);  // its owner's, still
}

TEST_F(GivenMemoryTest, a_memfd_cannot_be_cut_any_more) {
  const Descriptor given(::memfd_create("guest", MFD_ALLOW_SEALING));
  const auto memory = take(given.get(), ",size=2M");
  ASSERT_NE(memory, nullptr) << problem_;
  EXPECT_EQ(memory->length(), 2U << 20);
  EXPECT_FALSE(memory->may_shrink());
  EXPECT_NE(::ftruncate(given.get(), 0), 0);
}

// To open it anew would give more than its sender has.
TEST_F(GivenMemoryTest, one_that_cannot_be_written_is_refused) {
  for (const int flags : {O_RDONLY, O_WRONLY, O_PATH}) {
    EXPECT_EQ(take(file(flags).get()), nullptr);
    EXPECT_NE(problem_.find("must be open for reading and writing"), std::string::npos) << problem_;
  }
}

TEST_F(GivenMemoryTest, what_is_no_memory_is_refused) {
  const std::string wanted = "regular file of hugetlbfs or tmpfs";
  const Descriptor folder(::open("/dev/shm", O_RDONLY | O_DIRECTORY));
  EXPECT_EQ(take(folder.get()), nullptr);
  EXPECT_NE(problem_.find(wanted), std::string::npos) << problem_;
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const Descriptor reader(pipe[0]);
  const Descriptor writer(pipe[1]);
  EXPECT_EQ(take(writer.get()), nullptr);
  EXPECT_NE(problem_.find(wanted), std::string::npos) << problem_;
  std::string name = "/tmp/migrx-given-XXXXXX";
  const Descriptor disk(::mkstemp(name.data()));
  std::filesystem::remove(name);
  struct statfs fs {};
  ASSERT_EQ(::fstatfs(disk.get(), &fs), 0);
  if (fs.f_type != 0x01021994) {  // TMPFS_MAGIC
    EXPECT_EQ(take(disk.get(), ",size=4096"), nullptr);
    EXPECT_NE(problem_.find(wanted), std::string::npos) << problem_;
  }
  EXPECT_EQ(take(-1), nullptr);
  EXPECT_NE(problem_, "");
}

// A lock belongs to what one open(2) made: taken by the sender's own, a second claim would succeed.
TEST_F(GivenMemoryTest, the_same_descriptor_twice_is_refused) {
  const Descriptor given = file(O_RDWR);
  const auto memory = take(given.get());
  ASSERT_NE(memory, nullptr) << problem_;
  EXPECT_EQ(take(given.get()), nullptr);
  EXPECT_NE(problem_.find("another migration of this process has locked it"), std::string::npos) << problem_;
  ASSERT_EQ(::flock(given.get(), LOCK_UN), 0);  // nor can its sender give it up for us
  EXPECT_EQ(take(given.get()), nullptr);
  EXPECT_EQ(open(""), nullptr);  // by its path
}

TEST_F(GivenMemoryTest, its_path_may_lead_elsewhere_by_now) {
  const Descriptor given = file(O_RDWR);
  std::filesystem::remove(path_);
  std::ofstream(path_) << "another file";
  const auto memory = take(given.get());
  ASSERT_NE(memory, nullptr) << problem_;
  EXPECT_EQ(memory->length(), 1U << 20);
}

TEST_F(GivenMemoryTest, another_process_that_maps_it_is_seen_and_sizes_are_checked) {
  const Descriptor given = file(O_RDWR);
  {
    const OtherUser user(path_);
    const auto memory = take(given.get());
    ASSERT_NE(memory, nullptr) << problem_;
    EXPECT_EQ(memory->users().size(), 1U);
    EXPECT_FALSE(memory->fresh());
  }
  EXPECT_EQ(take(given.get(), ",size=2M"), nullptr);
  EXPECT_NE(problem_.find("the file has 1048576 bytes"), std::string::npos) << problem_;
  EXPECT_EQ(take(file(O_RDWR, 0).get()), nullptr);
  EXPECT_NE(problem_.find("give its size"), std::string::npos) << problem_;
}

// A hugetlbfs of this test's own: a machine need not have one at its usual place.
// A page of 2 MiB more than the host has, for as long as it lives, where none is free and we may make one.
class OneHugepage {
 public:
  OneHugepage() {
    if (read("free_hugepages") > read("resv_hugepages")) return;
    const uint64_t before = read("nr_hugepages");
    std::ofstream(kPages + "nr_hugepages") << before + 1;
    made_ = read("nr_hugepages") > before;
  }
  ~OneHugepage() {
    // Others may have made some meanwhile.
    if (const uint64_t now = read("nr_hugepages"); made_ && now > 0)
      std::ofstream(kPages + "nr_hugepages") << now - 1;
  }
  OneHugepage(const OneHugepage&) = delete;
  OneHugepage& operator=(const OneHugepage&) = delete;

 private:
  static uint64_t read(const char* name) {
    uint64_t value = 0;
    std::ifstream(kPages + name) >> value;
    return value;
  }
  inline static const std::string kPages = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
  bool made_ = false;
};

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
  const OneHugepage page;
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

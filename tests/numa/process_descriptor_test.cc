#include "numa/process_descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "numa/guest_memory.h"

namespace migrx {
namespace {

TEST(ProcessDescriptor, paths) {
  EXPECT_EQ(parse_process_descriptor("/proc/12/fd/3"), (ProcessDescriptor{12, 3}));
  for (const char* const other : {"", "/proc/12/fd/", "/proc//fd/3", "/proc/-1/fd/3", "/proc/12/fd/3/",
                                  "/proc/12/fd/3x", "/proc/self/fd/3", "/proc/12/map_files/3", "proc/12/fd/3",
                                  "/proc/99999999999/fd/3", "/proc/12/fd/-1"})
    EXPECT_EQ(parse_process_descriptor(other), std::nullopt) << other;
  EXPECT_EQ(parse_process_descriptor("/proc/" + std::to_string(::getpid()) + "/fd/3"), std::nullopt);
}

// Another process that has the file open with these flags, and maps it if it may.
class Owner {
 public:
  Owner(const std::string& path, int flags) {
    std::array<int, 2> told{};
    EXPECT_EQ(::pipe(told.data()), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      // A grandchild: this process's own children are its helpers.
      if (::fork() != 0) ::_exit(0);
      const std::array<int, 2> self{::getpid(), ::open(path.c_str(), flags)};
      (void)::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, self[1], 0);
      const bool told_all = ::write(told[1], self.data(), sizeof self) == sizeof self;
      while (told_all) ::pause();
      ::_exit(1);
    }
    ::waitpid(child, nullptr, 0);
    ::close(told[1]);
    std::array<int, 2> self{};
    EXPECT_EQ(::read(told[0], self.data(), sizeof self), static_cast<ssize_t>(sizeof self));
    ::close(told[0]);
    process_ = self[0];
    number_ = self[1];
  }
  ~Owner() {
    if (process_ > 0) ::kill(process_, SIGKILL);
  }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;

  [[nodiscard]] std::string path() const {
    return "/proc/" + std::to_string(process_) + "/fd/" + std::to_string(number_);
  }

 private:
  pid_t process_ = -1;
  int number_ = -1;
};

struct ProcessDescriptorTest : ::testing::Test {
  void SetUp() override { std::ofstream(path) << std::string(4096, 'x'); }
  void TearDown() override { std::filesystem::remove(path); }
  std::unique_ptr<GuestMemory> open(const std::string& of) {
    RamSpec spec;
    problem = parse_ram_spec("mem=" + of, spec);
    return problem.empty() ? GuestMemory::open(spec, problem) : nullptr;
  }
  const std::string path = "/dev/shm/migrx-process-descriptor-test-" + std::to_string(::getpid());
  std::string problem;
};

TEST_F(ProcessDescriptorTest, leads_to_the_file_also_when_it_has_no_name_any_more) {
  const Owner owner(path, O_RDWR);
  std::filesystem::remove(path);
  const auto memory = open(owner.path());
  ASSERT_NE(memory, nullptr) << problem;
  EXPECT_EQ(memory->length(), 4096U);
  EXPECT_FALSE(memory->made_here());
}

// Root could open the path for writing.
TEST_F(ProcessDescriptorTest, what_its_process_may_only_read_is_not_written) {
  for (const int flags : {O_RDONLY, O_WRONLY, O_PATH}) {
    const Owner owner(path, flags);
    EXPECT_EQ(open(owner.path()), nullptr) << flags;
    EXPECT_NE(problem.find("must be open for reading and writing"), std::string::npos) << problem;
  }
}

TEST_F(ProcessDescriptorTest, what_is_not_there) {
  const Owner owner(path, O_RDWR);
  EXPECT_EQ(open(owner.path() + "0000"), nullptr);
  EXPECT_NE(problem.find("no such descriptor"), std::string::npos) << problem;
  EXPECT_EQ(open("/proc/99999999/fd/3"), nullptr);
  EXPECT_NE(problem.find("has ended"), std::string::npos) << problem;
}

}  // namespace
}  // namespace migrx

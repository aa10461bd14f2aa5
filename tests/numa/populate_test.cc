#include "numa/populate.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "numa/control_group.h"

namespace migrx {
namespace {

// The children that this process has now.
std::vector<pid_t> children() {
  std::vector<pid_t> out;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream list(task.path() / "children");
    for (pid_t pid = 0; list >> pid;) out.push_back(pid);
  }
  return out;
}

// Without what AddressSanitizer would touch beside it.
[[gnu::no_sanitize_address]] void write_each_page(std::byte* data, uint64_t bytes) {
  for (uint64_t at = 0; at < bytes; at += 4096) data[at] = std::byte{1};
}

class PopulateTest : public ::testing::Test {
 protected:
  ~PopulateTest() override {
    if (request_.data != nullptr) ::munmap(request_.data, request_.bytes);
    if (fd_ >= 0) ::close(fd_);
  }
  void map(uint64_t bytes) {
    fd_ = ::memfd_create("migrx-populate-test", MFD_CLOEXEC);
    ASSERT_GE(fd_, 0);
    ASSERT_EQ(::ftruncate(fd_, static_cast<off_t>(bytes)), 0);
    void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    ASSERT_NE(data, MAP_FAILED);
    request_.data = static_cast<std::byte*>(data);
    request_.bytes = bytes;
  }
  [[nodiscard]] uint64_t allocated() const {
    struct stat st {};
    EXPECT_EQ(::fstat(fd_, &st), 0);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  }
  int fd_ = -1;
  PopulateRequest request_;
};

TEST_F(PopulateTest, all_pages_are_there_and_mapped_here) {
  map(16 << 20);
  const PopulateOutcome outcome = populate(request_, nullptr);
  EXPECT_EQ(outcome.end, PopulateOutcome::End::done);
  EXPECT_EQ(allocated(), request_.bytes);
  rusage before{};
  ASSERT_EQ(::getrusage(RUSAGE_SELF, &before), 0);
  write_each_page(request_.data, request_.bytes);
  rusage after{};
  ASSERT_EQ(::getrusage(RUSAGE_SELF, &after), 0);
  EXPECT_LT(after.ru_minflt - before.ru_minflt, 64);
  EXPECT_TRUE(children().empty());
}

TEST_F(PopulateTest, old_bytes_are_cleared_by_several_children) {
  map(96 << 20);
  std::memset(request_.data, 0x5a, request_.bytes);
  request_.clear = true;
  request_.cpus = {CpuId{0}, CpuId{0}, CpuId{0}};
  EXPECT_EQ(populate(request_, nullptr).end, PopulateOutcome::End::done);
  for (uint64_t at = 0; at < request_.bytes; at += 64) ASSERT_EQ(request_.data[at], std::byte{0}) << at;
}

TEST_F(PopulateTest, who_has_had_enough_is_heard_at_once) {
  map(256 << 20);
  request_.clear = true;
  const auto begin = std::chrono::steady_clock::now();
  const PopulateOutcome outcome = populate(request_, [](uint64_t) { return false; });
  EXPECT_EQ(outcome.end, PopulateOutcome::End::cancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  EXPECT_TRUE(children().empty());
}

TEST_F(PopulateTest, the_kernels_worst_hits_the_child) {
  map(512 << 20);
  request_.clear = true;
  std::string adjustment;
  bool killed = false;
  const PopulateOutcome outcome = populate(request_, [&](uint64_t) {
    for (const pid_t child : children()) {
      std::ifstream("/proc/" + std::to_string(child) + "/oom_score_adj") >> adjustment;
      if (adjustment == "1000") killed = ::kill(child, SIGKILL) == 0;
    }
    return true;
  });
  if (!killed) GTEST_SKIP() << "the child was faster";
  EXPECT_EQ(adjustment, "1000");
  EXPECT_EQ(outcome.end, PopulateOutcome::End::no_memory);
}

// A memory group of this test's own, in whichever hierarchy the host has.
class MemoryGroup {
 public:
  explicit MemoryGroup(uint64_t limit) {
    const std::string parent = memory_group_of(HostFiles(), "self");
    if (parent.empty()) return;
    path_ = parent + "/migrx-populate-test-" + std::to_string(::getpid());
    std::error_code error;
    if (!std::filesystem::create_directory(path_, error)) {
      path_.clear();
      return;
    }
    for (const char* const name : {"/memory.limit_in_bytes", "/memory.max"})
      if (std::filesystem::exists(path_ + name)) {
        std::ofstream file(path_ + name);
        limited_ = static_cast<bool>(file << limit << std::flush);
      }
    if (std::filesystem::exists(path_ + "/memory.swap.max")) std::ofstream(path_ + "/memory.swap.max") << 0;
  }
  ~MemoryGroup() {
    if (!path_.empty()) ::rmdir(path_.c_str());
  }
  MemoryGroup(const MemoryGroup&) = delete;
  MemoryGroup& operator=(const MemoryGroup&) = delete;
  [[nodiscard]] bool limited() const { return limited_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool limited_ = false;
};

TEST_F(PopulateTest, a_group_without_memory_ends_the_child_and_not_us) {
  const MemoryGroup group(32 << 20);
  if (!group.limited()) GTEST_SKIP() << "no memory control group can be made here";
  map(128 << 20);
  request_.charge_to = group.path();
  const PopulateOutcome outcome = populate(request_, nullptr);
  EXPECT_EQ(outcome.end, PopulateOutcome::End::no_memory);
  EXPECT_FALSE(outcome.charged_here);
  EXPECT_LT(allocated(), request_.bytes);
  // What was charged to the group goes with the pages.
  ASSERT_EQ(::ftruncate(fd_, 0), 0);
}

TEST_F(PopulateTest, pages_are_charged_to_the_group_that_is_named) {
  const MemoryGroup group(256 << 20);
  if (!group.limited()) GTEST_SKIP() << "no memory control group can be made here";
  map(64 << 20);
  request_.charge_to = group.path();
  EXPECT_EQ(populate(request_, nullptr).end, PopulateOutcome::End::done);
  const HostFiles files;
  const uint64_t used = std::max(memory_used(files, group.path(), "memory.current"),
                                 memory_used(files, group.path(), "memory.usage_in_bytes"));
  EXPECT_GE(used, request_.bytes);
  ASSERT_EQ(::ftruncate(fd_, 0), 0);
}

TEST_F(PopulateTest, a_group_that_cannot_be_joined_is_told) {
  map(1 << 20);
  request_.charge_to = "/nowhere";
  const PopulateOutcome outcome = populate(request_, nullptr);
  EXPECT_EQ(outcome.end, PopulateOutcome::End::done);
  EXPECT_TRUE(outcome.charged_here);
}

}  // namespace
}  // namespace migrx

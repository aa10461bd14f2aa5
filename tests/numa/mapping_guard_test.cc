#include "numa/mapping_guard.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace migrx {
namespace {

constexpr std::size_t kBytes = 1 << 20;

// A file that is mapped here, and that somebody can cut.
class Mapped {
 public:
  Mapped() : file_(::memfd_create("mapped", MFD_CLOEXEC)) {
    EXPECT_EQ(::ftruncate(file_.get(), kBytes), 0);
    data_ =
        static_cast<std::byte*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0));
  }
  ~Mapped() { ::munmap(data_, kBytes); }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  void cut() { EXPECT_EQ(::ftruncate(file_.get(), 0), 0); }
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  Descriptor file_;
  std::byte* data_;
};

// By which signal a process that does `what` dies; 0: by none.
int dies_by(const std::function<void()>& what) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGBUS, SIG_DFL);  // a sanitizer's handler would write pages about it
    what();
    std::_Exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

bool readable(int fd) {
  pollfd waits{fd, POLLIN, 0};
  return ::poll(&waits, 1, 0) == 1;
}

TEST(MappingGuard, a_file_that_is_cut_ends_nobody) {
  MappingGuard guard;
  Mapped mapped;
  const Mapped other;
  const auto place = guard.watch(mapped.data(), kBytes);
  const auto others = guard.watch(other.data(), kBytes);
  ASSERT_TRUE(place && others);
  mapped.data()[5] = std::byte{1};
  EXPECT_FALSE(guard.lost(*place));
  EXPECT_FALSE(readable(guard.wake_fd()));
  mapped.cut();
  for (std::size_t at = 0; at < kBytes; at += 4096) mapped.data()[at] = std::byte{7};
  EXPECT_EQ(mapped.data()[4096], std::byte{7});
  EXPECT_TRUE(guard.lost(*place));
  EXPECT_FALSE(guard.lost(*others));
  EXPECT_TRUE(readable(guard.wake_fd()));
  guard.clear_wake();
  EXPECT_FALSE(readable(guard.wake_fd()));
  guard.forget(*place);
  // Its place is another's now, which has lost nothing.
  EXPECT_EQ(guard.watch(other.data(), kBytes), place);
  EXPECT_FALSE(guard.lost(*place));
}

TEST(MappingGuard, threads_that_fault_together) {
  MappingGuard guard;
  Mapped mapped;
  const auto place = guard.watch(mapped.data(), kBytes);
  mapped.cut();
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      for (std::size_t at = i * 4096; at < kBytes; at += 4 * 4096) mapped.data()[at] = std::byte{7};
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(guard.lost(*place));
}

TEST(MappingGuard, any_other_fault_does_what_it_did) {
  EXPECT_EQ(dies_by([] {
              MappingGuard guard;
              Mapped watched;
              Mapped mapped;
              (void)guard.watch(watched.data(), kBytes);
              mapped.cut();
              mapped.data()[0] = std::byte{1};
            }),
            SIGBUS);
  EXPECT_EQ(dies_by([] {
              MappingGuard guard;
              ::raise(SIGBUS);
            }),
            SIGBUS);
  EXPECT_EQ(dies_by([] {
              Mapped mapped;
              { MappingGuard guard; }
              mapped.cut();
              mapped.data()[0] = std::byte{1};
            }),
            SIGBUS);
  EXPECT_EQ(dies_by([] {
              MappingGuard guard;
              Mapped mapped;
              const auto place = guard.watch(mapped.data(), kBytes);
              guard.forget(*place);
              mapped.cut();
              mapped.data()[0] = std::byte{1};
            }),
            SIGBUS);
}

// It would fill private memory, and nobody would hear of it.
TEST(MappingGuard, in_a_forked_process_a_fault_is_a_fault) {
  struct sigaction before {};
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;  // see dies_by()
  ASSERT_EQ(::sigaction(SIGBUS, &plain, &before), 0);
  auto guard = std::make_unique<MappingGuard>();
  Mapped mapped;
  (void)guard->watch(mapped.data(), kBytes);
  mapped.cut();
  const pid_t child = ::fork();
  if (child == 0) {
    mapped.data()[0] = std::byte{1};
    std::_Exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
  guard.reset();
  (void)::sigaction(SIGBUS, &before, nullptr);
}

TEST(MappingGuard, places_are_bounded) {
  MappingGuard guard;
  std::byte byte{};
  for (std::size_t i = 0; i < MappingGuard::kWatchedMax; ++i) ASSERT_TRUE(guard.watch(&byte, 1));
  EXPECT_FALSE(guard.watch(&byte, 1));
}

}  // namespace
}  // namespace migrx

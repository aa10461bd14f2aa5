#include "numa/populate.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>

#include "numa/process_descriptor.h"

namespace migrx {
namespace {

// Small enough for progress and balance, large enough that the call does not count.
constexpr uint64_t kChunkBytes = 64 << 20;
constexpr int kLookMs = 20;

// What the children and this process share.
struct Shared {
  std::atomic<uint64_t> next{0};
  std::atomic<uint64_t> done{0};
  std::atomic<int> error{0};
  std::atomic<bool> charged_here{false};
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

bool write_text(const char* path, const char* text) noexcept {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const auto size = static_cast<ssize_t>(std::strlen(text));
  const bool written = ::write(fd, text, static_cast<std::size_t>(size)) == size;
  ::close(fd);
  return written;
}

void pin(const CpuId& cpu) noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu.value()), &set);
  (void)::sched_setaffinity(0, sizeof set, &set);
}

// Calls work(at, bytes) for one chunk after the other until all are taken or one failed.
template <typename Work>
void for_each_chunk(const PopulateRequest& request, Shared& shared, const Work& work) noexcept {
  const uint64_t chunk = std::max(request.page_bytes, kChunkBytes);
  for (;;) {
    const uint64_t at = shared.next.fetch_add(chunk);
    if (at >= request.bytes || shared.error.load() != 0) return;
    const uint64_t bytes = std::min(chunk, request.bytes - at);
    // An error code where touching the page would be SIGBUS.
    if (::madvise(request.data + at, bytes, MADV_POPULATE_WRITE) != 0) {
      shared.error.store(errno);
      return;
    }
    work(at, bytes);
    shared.done.fetch_add(bytes);
  }
}

// Between fork() and _exit() nothing but system calls and the memory that is shared: another thread of the
// parent may have held any lock.
[[noreturn]] void be_child(const PopulateRequest& request, Shared& shared, pid_t parent, const CpuId* cpu,
                           const char* procs) noexcept {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  (void)write_text("/proc/self/oom_score_adj", "1000");
  if (*procs != '\0' && !write_text(procs, "0")) shared.charged_here.store(true);
  if (cpu != nullptr) pin(*cpu);
  for_each_chunk(request, shared, [&](uint64_t at, uint64_t bytes) {
    if (request.clear) std::memset(request.data + at, 0, bytes);
  });
  ::_exit(shared.error.load() == 0 ? 0 : 1);
}

class Children {
 public:
  Children() = default;
  ~Children() { end(); }
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  // False: errno says why.
  bool add(const PopulateRequest& request, Shared& shared, const CpuId* cpu, const char* procs) {
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid == 0) be_child(request, shared, parent, cpu, procs);
    if (pid < 0) return false;
    list_.push_back({pid, hold_process(pid)});  // poll() skips a descriptor that could not be had
    return true;
  }

  // Waits a little. False: none is left, or one was ended by the kernel.
  [[nodiscard]] bool running() {
    std::vector<pollfd> descriptors;
    for (const One& child : list_) descriptors.push_back({child.held.get(), POLLIN, 0});
    (void)::poll(descriptors.data(), descriptors.size(), kLookMs);
    for (auto child = list_.begin(); child != list_.end();) {
      int status = 0;
      if (::waitpid(child->pid, &status, WNOHANG) == 0) {
        ++child;
        continue;
      }
      killed_ = killed_ || WIFSIGNALED(status);
      child = list_.erase(child);
    }
    return !list_.empty() && !killed_;
  }
  [[nodiscard]] bool killed() const noexcept { return killed_; }

  void end() {
    for (const One& child : list_) ::kill(child.pid, SIGKILL);
    for (const One& child : list_) {
      while (::waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
    list_.clear();
  }

 private:
  struct One {
    pid_t pid;
    Descriptor held;
  };
  std::vector<One> list_;
  bool killed_ = false;
};

// The pages are there: this costs page tables and nothing else, and spares the writers a fault for each page.
PopulateOutcome map_here(const PopulateRequest& request, Shared& shared,
                         const std::function<bool(uint64_t)>& go_on) {
  PopulateOutcome outcome;
  std::mutex mutex;
  std::condition_variable finished;
  std::size_t running = std::max<std::size_t>(1, request.cpus.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < std::max<std::size_t>(1, request.cpus.size()); ++i)
    threads.emplace_back([&, i] {
      if (!request.cpus.empty()) pin(request.cpus[i]);
      for_each_chunk(request, shared, [](uint64_t, uint64_t) {});
      const std::lock_guard lock(mutex);
      --running;
      finished.notify_one();
    });
  {
    std::unique_lock lock(mutex);
    while (running > 0) {
      finished.wait_for(lock, std::chrono::milliseconds(kLookMs));
      if (outcome.end == PopulateOutcome::End::done && go_on && !go_on(request.bytes)) {
        outcome.end = PopulateOutcome::End::cancelled;
        shared.next.store(request.bytes);  // no chunk is begun any more
      }
    }
  }
  for (std::thread& thread : threads) thread.join();
  outcome.error = shared.error.load();
  if (outcome.error != 0) outcome.end = PopulateOutcome::End::failed;
  return outcome;
}

PopulateOutcome make_pages(const PopulateRequest& request, Shared& shared,
                           const std::function<bool(uint64_t)>& go_on) {
  PopulateOutcome outcome;
  const std::string procs = request.charge_to.empty() ? "" : request.charge_to + "/cgroup.procs";
  Children children;
  for (std::size_t i = 0; i < std::max<std::size_t>(1, request.cpus.size()); ++i)
    if (!children.add(request, shared, request.cpus.empty() ? nullptr : &request.cpus[i], procs.c_str())) {
      outcome.end = PopulateOutcome::End::failed;
      outcome.error = errno;
      return outcome;
    }
  while (children.running())
    if (go_on && !go_on(shared.done.load())) {
      outcome.end = PopulateOutcome::End::cancelled;
      return outcome;
    }
  outcome.charged_here = shared.charged_here.load();
  if (children.killed() || (shared.done.load() < request.bytes && shared.error.load() == 0)) {
    outcome.end = PopulateOutcome::End::no_memory;
    return outcome;
  }
  outcome.error = shared.error.load();
  if (outcome.error != 0) outcome.end = PopulateOutcome::End::failed;
  return outcome;
}

}  // namespace

PopulateOutcome populate(const PopulateRequest& request, const std::function<bool(uint64_t)>& go_on) {
  void* const page =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return {PopulateOutcome::End::failed, errno, false};
  auto* const shared = new (page) Shared;
  PopulateOutcome outcome = make_pages(request, *shared, go_on);
  if (outcome.end == PopulateOutcome::End::done) {
    shared->next.store(0);
    const bool charged_here = outcome.charged_here;
    outcome = map_here(request, *shared, go_on);
    outcome.charged_here = charged_here;
  }
  ::munmap(page, sizeof(Shared));
  return outcome;
}

}  // namespace migrx

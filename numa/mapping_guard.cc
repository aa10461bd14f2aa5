#include "numa/mapping_guard.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>

namespace migrx {
namespace {

// The one thing that a handler can find. A process that was forked has the handler as well, but not the owner
// who hears of a loss: there a fault is a fault.
struct Handling {
  std::atomic<MappingGuard*> guard{nullptr};
  std::atomic<pid_t> process{0};
  struct sigaction before {};
};

Handling& handling() {
  static Handling only;
  return only;
}

void on_fault(int number, siginfo_t* info, void*) {
  const int error = errno;
  Handling& handled = handling();
  MappingGuard* const guard = handled.guard.load(std::memory_order_acquire);
  const bool fault = info->si_code > 0;  // of the kernel; others come from kill(2)
  if (fault && guard != nullptr && handled.process.load(std::memory_order_relaxed) == ::getpid() &&
      guard->replace(reinterpret_cast<std::uintptr_t>(info->si_addr))) {
    errno = error;
    return;
  }
  // As it was before: the same instruction faults again, and what was sent is sent again.
  ::sigaction(SIGBUS, &handled.before, nullptr);
  if (!fault) ::raise(number);
  errno = error;
}

}  // namespace

MappingGuard::MappingGuard() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  Handling& handled = handling();
  assert(handled.guard.load() == nullptr);
  handled.process = ::getpid();
  handled.guard.store(this, std::memory_order_release);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, &handled.before);
}

MappingGuard::~MappingGuard() {
  Handling& handled = handling();
  ::sigaction(SIGBUS, &handled.before, nullptr);
  handled.guard.store(nullptr, std::memory_order_release);
}

std::optional<MappingGuard::Place> MappingGuard::watch(std::byte* begin, std::size_t bytes) {
  for (Place place = 0; place < watched_.size(); ++place) {
    Watched& watched = watched_[place];
    if (watched.bytes.load(std::memory_order_relaxed) != 0) continue;
    watched.lost.store(false, std::memory_order_relaxed);
    watched.begin.store(reinterpret_cast<std::uintptr_t>(begin), std::memory_order_relaxed);
    watched.bytes.store(bytes, std::memory_order_release);
    return place;
  }
  return std::nullopt;
}

void MappingGuard::forget(Place place) {
  watched_[place].bytes.store(0, std::memory_order_release);
}

void MappingGuard::clear_wake() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &count, sizeof count);
}

bool MappingGuard::replace(std::uintptr_t address) noexcept {
  for (Watched& watched : watched_) {
    const std::size_t bytes = watched.bytes.load(std::memory_order_acquire);
    const std::uintptr_t begin = watched.begin.load(std::memory_order_relaxed);
    if (address < begin || address - begin >= bytes) continue;
    // All of it at once: the next pages are gone as well, and a part of a hugepage cannot be replaced. Memory
    // is taken as it is touched, and its owner is woken. Threads that fault together replace it one after
    // another.
    void* const memory = ::mmap(reinterpret_cast<void*>(begin), bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    watched.lost.store(true, std::memory_order_release);
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
    return true;
  }
  return false;
}

}  // namespace migrx

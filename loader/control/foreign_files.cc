#include "loader/control/foreign_files.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace migrx {

struct ForeignFiles::Shared {
  std::mutex mutex;
  std::condition_variable news;
  std::deque<Descriptor> waiting;  // the first one is being closed
  bool running = false;
  bool end = false;
};

bool is_memory_file(int fd) noexcept {
  return ::fcntl(fd, F_GET_SEALS) >= 0;
}

ForeignFiles::ForeignFiles() : shared_(std::make_shared<Shared>()) {}

ForeignFiles::~ForeignFiles() {
  const std::lock_guard lock(shared_->mutex);
  shared_->end = true;
  shared_->news.notify_all();
}

void ForeignFiles::dispose(std::vector<Descriptor> files) {
  for (Descriptor& file : files) dispose(std::move(file));
}

void ForeignFiles::dispose(Descriptor file) {
  if (!file || is_memory_file(file.get())) return;
  const linger none{0, 0};
  if (::setsockopt(file.get(), SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0) return;
  const std::lock_guard lock(shared_->mutex);
  shared_->waiting.push_back(std::move(file));
  shared_->news.notify_all();
  if (std::exchange(shared_->running, true)) return;
  // Detached, with a share in what it works on: it may stand still when this object goes.
  try {
    std::thread([shared = shared_] {
      std::unique_lock held(shared->mutex);
      for (;;) {
        shared->news.wait(held, [&] { return !shared->waiting.empty() || shared->end; });
        if (shared->waiting.empty()) return;
        Descriptor next = std::move(shared->waiting.front());
        held.unlock();
        next.reset();
        held.lock();
        shared->waiting.pop_front();
      }
    }).detach();
  } catch (const std::system_error&) {
    shared_->running = false;  // no thread to be had: the next one tries again
  }
}

bool ForeignFiles::overrun() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->waiting.size() >= kWaitingMax;
}

}  // namespace migrx

#include "loader/forward/forward_thread.h"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "loader/destination/network_namespace.h"
#include "loader/forward/tcp_server_link.h"
#include "numa/clock.h"

namespace migrx {
namespace {

constexpr uint64_t kLookEveryNs = 100'000'000;
constexpr std::chrono::milliseconds kIdle{100};
// While connections are there and nothing moves: nobody wakes this thread when a peer's bytes come, since a
// poll core makes no system calls.
constexpr uint32_t kPauseMinUs = 50;
constexpr uint32_t kPauseMaxUs = 2000;

template <class T>
auto find_inode(std::vector<T>& known, uint64_t inode) {
  return std::find_if(known.begin(), known.end(), [inode](const T& one) { return one.inode == inode; });
}
template <class T>
bool has(std::vector<T>& known, uint64_t inode) {
  return find_inode(known, inode) != known.end();
}

}  // namespace

ForwardThread::ForwardThread(const std::optional<WatchedProcess>& watched, const ForwardLimits& limits)
    : limits_(limits), watched_(watched) {
  if (watched_) {
    std::string problem = process_.watch(watched_->process);
    if (problem.empty()) namespace_ = network_namespace_of(watched_->process, problem);
    if (problem.empty())
      look(monotonic_ns());
    else
      tell(std::move(problem));
  }
  thread_ = std::thread([this] { run(); });
}

ForwardThread::~ForwardThread() {
  stop();
}

void ForwardThread::stop() noexcept {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void ForwardThread::take(Handoff& connection, const SocketAddress& server) {
  {
    const std::lock_guard lock(mutex_);
    arrivals_.push_back({&connection, server});
  }
  wake_.notify_one();
}

ForwardThread::News ForwardThread::take_news() {
  const std::lock_guard lock(mutex_);
  return std::exchange(news_, {});
}

void ForwardThread::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    const std::vector<Arrival> arrivals = std::exchange(arrivals_, {});
    lock.unlock();
    const uint64_t now_ns = monotonic_ns();
    uint32_t work = static_cast<uint32_t>(arrivals.size());
    admit(arrivals, now_ns);
    work += turn(now_ns);
    if (process_.watching() && now_ns - looked_ns_ >= kLookEveryNs) {
      try {
        look(now_ns);
      } catch (const std::exception& failure) {  // no memory, say: what is under way must not end with it
        tell(failure.what());
      }
    }
    if (work > 0)
      pause_us_ = 0;
    else if (!forwards_.empty())
      pause();
    lock.lock();
    if (forwards_.empty() && arrivals_.empty() && !stop_) wake_.wait_for(lock, kIdle);
  }
  std::vector<Arrival> late = std::exchange(arrivals_, {});
  lock.unlock();
  admit(late, monotonic_ns());
  for (const std::unique_ptr<Forward>& forward : forwards_) {
    forward->stop();
    tell_ended(*forward);
  }
  forwards_.clear();
}

void ForwardThread::admit(const std::vector<Arrival>& arrivals, uint64_t now_ns) {
  for (const Arrival& one : arrivals)
    forwards_.push_back(std::make_unique<Forward>(
        *one.connection, std::make_unique<TcpServerLink>(one.server, namespace_ ? namespace_.get() : -1),
        limits_, now_ns));
}

uint32_t ForwardThread::turn(uint64_t now_ns) {
  uint32_t work = 0;
  for (std::size_t i = 0; i < forwards_.size();) {
    Forward& forward = *forwards_[i];
    work += forward.do_work(now_ns);
    if (forward.over()) {
      tell_ended(forward);
      forwards_.erase(forwards_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  return work;
}

void ForwardThread::look(uint64_t now_ns) {
  looked_ns_ = now_ns;
  std::string problem;
  std::vector<PortListener> found;
  if (!process_.ended())
    found = listeners_between(watched_->first, watched_->last, namespace_ ? namespace_.get() : -1, problem);
  if (!problem.empty()) return tell(std::move(problem));
  std::vector<PortListener> appeared;
  std::vector<PortListener> gone;
  for (const PortListener& one : listeners_)
    if (!has(found, one.inode)) gone.push_back(one);
  std::erase_if(listeners_, [&](const PortListener& one) { return !has(found, one.inode); });
  std::erase_if(strangers_, [&](const Stranger& one) { return !has(found, one.inode); });
  for (const PortListener& one : found) {
    if (one.port == watched_->except || has(listeners_, one.inode)) continue;
    const auto stranger = find_inode(strangers_, one.inode);
    if (stranger != strangers_.end() && stranger->looks >= kStrangerLooks) continue;
    if (process_has_socket(watched_->process, one.inode)) {
      listeners_.push_back(one);
      appeared.push_back(one);
    } else if (stranger != strangers_.end()) {
      ++stranger->looks;
    } else {
      strangers_.push_back({one.inode, 1});
    }
  }
  if (appeared.empty() && gone.empty()) return;
  const std::lock_guard lock(mutex_);
  news_.appeared.insert(news_.appeared.end(), appeared.begin(), appeared.end());
  news_.gone.insert(news_.gone.end(), gone.begin(), gone.end());
}

// Until a server says something, or for a while that grows as long as nothing moves.
void ForwardThread::pause() {
  std::vector<pollfd> waits;
  for (const std::unique_ptr<Forward>& forward : forwards_)
    if (forward->wake_fd() >= 0) waits.push_back({forward->wake_fd(), POLLIN, 0});
  pause_us_ = std::clamp(pause_us_ * 2, kPauseMinUs, kPauseMaxUs);
  const timespec time{0, static_cast<long>(pause_us_) * 1000};
  static_cast<void>(::ppoll(waits.data(), waits.size(), &time, nullptr));
}

void ForwardThread::tell_ended(const Forward& forward) {
  const std::lock_guard lock(mutex_);
  news_.ended.push_back(
      {&forward.connection(), forward.end(), forward.bytes_to_server.read(), forward.bytes_to_peer.read()});
}

void ForwardThread::tell(std::string problem) {
  if (std::exchange(problem_told_, true)) return;
  const std::lock_guard lock(mutex_);
  news_.problem = std::move(problem);
}

}  // namespace migrx

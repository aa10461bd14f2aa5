#include "loader/app/serve/discovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "loader/destination/port_range.h"
#include "numa/clock.h"

namespace migrx {
namespace {

// A source that connects as soon as its destination listens waits for its first retransmission, a second
// later, and everything is ready by then.
constexpr std::chrono::milliseconds kLookEvery{50};
// A QEMU that waits listens for main and its channels. Its NBD server for disks, whose port may be of the
// same range, has a longer queue.
constexpr uint32_t kMigrationBacklogMax = 255;

}  // namespace

Discovery::Discovery(PortRange range, std::vector<uid_t> users, AwaitedPorts& ports)
    : range_(range), users_(std::move(users)), ports_(ports), table_(range), thread_([this] { run(); }) {}

Discovery::~Discovery() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

Discovery::News Discovery::take_news() {
  if (!has_news_.load(std::memory_order_relaxed)) return {};
  const std::lock_guard lock(mutex_);
  has_news_.store(false, std::memory_order_relaxed);
  return std::exchange(news_, {});
}

void Discovery::refuse(uint64_t inode) {
  const std::lock_guard lock(mutex_);
  refused_.push_back(inode);
}

void Discovery::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    for (const uint64_t inode : std::exchange(refused_, {})) table_.refuse(inode);
    lock.unlock();
    std::string problem;
    try {
      look();
    } catch (
        const std::exception& failure) {  // no memory, say: the migrations under way must not end with it
      problem = failure.what();
    }
    lock.lock();
    if (!problem.empty()) tell(problem);
    wake_.wait_for(lock, kLookEvery, [this] { return stop_; });
  }
  await_none();
}

void Discovery::look() {
  std::vector<uint16_t> asked;
  for (uint32_t port = range_.first; port <= range_.last; ++port)
    if (ports_.take_asked(static_cast<uint16_t>(port))) asked.push_back(static_cast<uint16_t>(port));
  std::string problem;
  const std::vector<PortListener> listeners = listeners_between(range_.first, range_.last, -1, problem);
  if (!problem.empty()) {
    // Nothing is known of who listens while the kernel does not tell.
    await_none();
    const std::lock_guard lock(mutex_);
    return tell(problem);
  }
  ListenerTable::News news = table_.take(listeners, asked, monotonic_ns());
  const uint64_t now_ns = monotonic_ns();
  for (uint32_t port = range_.first; port <= range_.last; ++port)
    ports_.set(static_cast<uint16_t>(port), table_.awaited(static_cast<uint16_t>(port), now_ns));

  std::vector<WaitingQemu> found;
  for (const PortListener& listener : news.appeared) {
    SocketAddress address;
    std::string why = parse_socket_address(listener.address, address);
    if (why.empty()) why = no_way_to(address);
    if (why.empty())
      found.push_back(examine(listener));
    else
      unreachable_.add(listener, std::move(why), now_ns);
  }
  for (const UnreachableListeners::One& one : unreachable_.take_due(listeners, now_ns))
    found.push_back(
        {.listener = one.listener,
         .process = 0,
         .memory = {},
         .problem = fmt::format("it listens on {} alone, which cannot be reached from here ({}): give it "
                                "an address of this host",
                                one.listener.address, one.why)});
  const std::lock_guard lock(mutex_);
  for (WaitingQemu& one : found) news_.found.push_back(std::move(one));
  news_.gone.insert(news_.gone.end(), news.gone.begin(), news.gone.end());
  if (!news_.found.empty() || !news_.gone.empty()) has_news_.store(true, std::memory_order_relaxed);
}

void Discovery::await_none() {
  for (uint32_t port = range_.first; port <= range_.last; ++port)
    ports_.set(static_cast<uint16_t>(port), false);
}

void Discovery::tell(const std::string& problem) {
  if (std::exchange(problem_told_, true)) return;
  news_.problem = problem;
  has_news_.store(true, std::memory_order_relaxed);
}

WaitingQemu Discovery::examine(const PortListener& listener) const {
  WaitingQemu found{.listener = listener, .process = 0, .memory = {}, .problem = {}};
  const std::vector<pid_t> processes = waiting_processes_with_socket(listener.inode);
  if (processes.empty()) {
    found.problem = "no QEMU with -incoming has it open, as far as this process can see";
  } else if (listener.backlog > kMigrationBacklogMax) {
    found.problem = "it is no migration socket: its queue is as long as an NBD server's";
  } else if (processes.size() > 1) {
    found.problem = "several processes have it open";
  } else {
    found.process = processes.front();
    found.problem = take_memory(found.process, listener.inode, found.memory);
    if (found.problem.empty() && std::find(users_.begin(), users_.end(), found.memory.user) == users_.end())
      found.problem = fmt::format("process {} runs as user {}, who is not among --serve-users", found.process,
                                  found.memory.user);
  }
  // What no guest goes into is not held.
  if (!found.problem.empty()) found.memory = {};
  return found;
}

}  // namespace migrx

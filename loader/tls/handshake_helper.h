// The thread on which handshakes are done: a signature takes milliseconds, and neither a poll core, nor a
// worker, nor the control thread waits for one.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace migrx {

// Any thread may post.
class HandshakeHelper {
 public:
  // Throws std::system_error when the host has no room for a thread.
  HandshakeHelper();
  // Waits for the job at hand; those behind it are dropped.
  ~HandshakeHelper();
  HandshakeHelper(const HandshakeHelper&) = delete;
  HandshakeHelper& operator=(const HandshakeHelper&) = delete;

  // Jobs run in their order. What a job uses lives until it has run or was dropped.
  void post(std::function<void()> job);

 private:
  void run();

  std::mutex mutex_;  // held for moments
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace migrx

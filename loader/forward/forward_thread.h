// The thread that forwards connections to servers of this host, and that looks which servers the destination
// QEMU has: a port that it listens on in a range, besides that of its migration, is its NBD server for disks.
// libvirt takes that port when it prepares a migration (qemuMigrationDstStartNBDServer), so that nobody can
// name it before.
//
// It is no poll core: it makes system calls, and sleeps while nothing moves.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "loader/destination/process_watch.h"
#include "loader/destination/socket_address.h"
#include "loader/destination/socket_diag.h"
#include "loader/forward/forward.h"
#include "numa/descriptor.h"

namespace migrx {

// Whose listeners are looked for.
struct WatchedProcess {
  pid_t process = 0;
  uint16_t first = 0;  // ports, both included
  uint16_t last = 0;
  uint16_t except = 0;  // that of its migration
};

class ForwardThread {
 public:
  // What became of a connection that was taken.
  struct Ended {
    Handoff* connection = nullptr;  // detached, to be retired
    Forward::End end = Forward::End::none;
    uint64_t bytes_to_server = 0;
    uint64_t bytes_to_peer = 0;
  };
  struct News {
    std::vector<PortListener> appeared;
    std::vector<PortListener> gone;
    std::vector<Ended> ended;
    std::string problem;  // why listeners cannot be found; said once
  };

  // watched: nullopt: nothing is looked for. The first look is over when this returns. Allocates, makes
  // system calls.
  ForwardThread(const std::optional<WatchedProcess>& watched, const ForwardLimits& limits);
  ~ForwardThread();
  ForwardThread(const ForwardThread&) = delete;
  ForwardThread& operator=(const ForwardThread&) = delete;

  // ---- Control thread
  // From now on its thread alone touches the connection, until take_news() gives it back.
  void take(Handoff& connection, const SocketAddress& server);
  // Does not wait for the thread.
  [[nodiscard]] News take_news();
  // Ends what is under way; all connections are in the next news. Waits for the thread, which is over within
  // milliseconds. May be repeated.
  void stop() noexcept;

 private:
  struct Arrival {
    Handoff* connection = nullptr;
    SocketAddress server;
  };

  void run();
  void admit(const std::vector<Arrival>& arrivals, uint64_t now_ns);
  uint32_t turn(uint64_t now_ns);
  void look(uint64_t now_ns);
  void pause();
  void tell_ended(const Forward& forward);
  void tell(std::string problem);

  const ForwardLimits limits_;
  const std::optional<WatchedProcess> watched_;
  // Its thread's.
  Descriptor namespace_;
  ProcessWatch process_;
  std::vector<PortListener> listeners_;
  // In the range, and not of that process. A look at its descriptors may miss one while they change, so some
  // looks are needed.
  struct Stranger {
    uint64_t inode = 0;
    uint32_t looks = 0;
  };
  static constexpr uint32_t kStrangerLooks = 5;
  std::vector<Stranger> strangers_;
  uint64_t looked_ns_ = 0;
  bool problem_told_ = false;
  std::vector<std::unique_ptr<Forward>> forwards_;
  uint32_t pause_us_ = 0;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::vector<Arrival> arrivals_;
  News news_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace migrx

// Finds the QEMUs of this host that wait for a guest on the ports of --serve-ports, with all that a migration
// into them needs to know: nothing has to be said to migrx by whoever starts them (libvirt, for one).
//
// A thread of its own looks: a host has thousands of descriptors in /proc, and the control thread must not
// wait for them.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/awaited_ports.h"
#include "loader/app/serve/listener_table.h"
#include "loader/app/serve/serve_options.h"
#include "loader/app/serve/unreachable_listeners.h"
#include "loader/destination/incoming_qemu.h"
#include "loader/destination/port_range.h"

namespace migrx {

// A QEMU that listens, and its guest's memory.
struct WaitingQemu {
  PortListener listener;
  pid_t process = 0;
  TakenMemory memory;
  std::string problem;  // why no guest can be given to it; empty: one can
};

class Discovery {
 public:
  // Begins to look. users: whose QEMUs may get a guest. `ports` outlives it.
  Discovery(PortRange range, std::vector<uid_t> users, AwaitedPorts& ports);
  ~Discovery();
  Discovery(const Discovery&) = delete;
  Discovery& operator=(const Discovery&) = delete;

  // ---- Control thread. Neither waits for the thread that looks.
  // Since the last call: QEMUs that began to wait, and sockets (inodes) on which nobody listens any more.
  struct News {
    std::vector<WaitingQemu> found;
    std::vector<uint64_t> gone;
    std::string problem;  // why nothing can be found; said once
  };
  [[nodiscard]] News take_news();
  // No guest goes to that socket, nor to another of its port: who connects there is told so by RST.
  void refuse(uint64_t inode);

 private:
  void run();
  void look();
  void await_none();
  void tell(const std::string& problem);  // with the mutex held

  [[nodiscard]] WaitingQemu examine(const PortListener& listener) const;

  const PortRange range_;
  const std::vector<uid_t> users_;
  AwaitedPorts& ports_;
  ListenerTable table_;  // its thread's
  UnreachableListeners unreachable_;
  bool problem_told_ = false;

  std::atomic<bool> has_news_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  News news_;
  std::vector<uint64_t> refused_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace migrx

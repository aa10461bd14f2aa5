// The real receiver on simulated ports: poll cores, hand-off rings, loader workers, session and its control
// part, as loader/app puts them together, in one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dataplane/owner_table.h"
#include "dataplane/poll_core.h"
#include "dataplane/tenants.h"
#include "loader/destination/device_state_file.h"
#include "loader/main/compress_jobs.h"
#include "loader/ram/node_router.h"
#include "loader/session/session.h"
#include "loader/session/session_control.h"
#include "tests/sim/checker.h"
#include "tests/sim/port.h"
#include "tests/sim/source.h"

namespace migrx::sim {

inline constexpr uint16_t kPort = 4444;  // that it listens on

struct ReceiverOptions {
  uint32_t poll_cores = 1;
  uint32_t workers = 1;
  uint32_t mtu = 1500;
  uint32_t buffer_bytes = 2048;
  uint32_t quota = 63;             // packet buffers per connection; 0: the least allowed
  uint32_t connections_spare = 4;  // beyond main and the channels
  uint32_t lane_jobs = 16;         // copies for another node's worker that it makes per turn
  uint32_t syn_table_entries = 64;
  bool two_nodes = false;  // half of the workers on another node than the large block
  uint32_t window_bytes = 4U << 20;
  PortOptions port;
  SessionLimits limits;
  // Where a peer may vanish; where the link does, as shipped.
  uint64_t peer_timeout_ns = 50'000'000'000;
};

// Device state is counted and dropped; RAM is compared whenever an epoch closes.
class Receiver {
 public:
  Receiver(const ReceiverOptions& options, const Source& source, Random& random);
  ~Receiver();
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  // One turn of agent `i` of agents(): poll cores, then workers, then the control part.
  uint32_t turn(uint32_t i, uint64_t now_ns);
  [[nodiscard]] uint32_t agents() const;
  [[nodiscard]] bool is_worker(uint32_t i) const;
  // Of all poll cores.
  [[nodiscard]] uint64_t read(TcpCounter counter) const;

  [[nodiscard]] Port& port(uint32_t core) { return *ports_[core]; }
  [[nodiscard]] uint32_t cores() const { return static_cast<uint32_t>(cores_.size()); }
  [[nodiscard]] SessionControl& control() { return *control_; }
  [[nodiscard]] const Session& session() const { return *session_; }
  [[nodiscard]] bool accepted() const { return device_state_.verdict() == Verdict::accepted; }
  // Epochs compared with the source's image so far, and the first difference.
  [[nodiscard]] uint64_t epochs_checked() const;
  [[nodiscard]] const std::string& difference() const;
  // A channel that said from this address what a source says first has been taken: main's header, or a
  // multifd channel's first packet.
  [[nodiscard]] bool knows(const IpAddress& source) const;
  // Behind over(): compares RAM with the guest's final image.
  [[nodiscard]] std::string compare_final() const;
  // Behind over(): what the program does when its report is written.
  void retire();
  // Connections and buffers in use; both must come to zero.
  [[nodiscard]] uint32_t connections_in_use() const;
  [[nodiscard]] uint32_t buffers_out() const;
  [[nodiscard]] uint64_t serving() const;
  // Takes packet buffers away from every pool until `leave` are free; gives all of them back.
  void take_buffers(uint32_t leave);
  void give_buffers_back();
  // Made by poll cores and workers between the first epoch's end and the session's.
  [[nodiscard]] uint64_t data_path_allocations() const { return allocations_; }
  [[nodiscard]] std::string counters() const;

 private:
  class Task;
  class Memory;

  const Source& source_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<PollMesh> mesh_;
  std::vector<std::unique_ptr<testing::MemoryPool>> pools_;
  std::vector<testing::MemoryPool::Buffer*> taken_;
  std::vector<std::unique_ptr<Port>> ports_;
  std::vector<std::unique_ptr<PollCore>> cores_;
  Tenants tenants_;
  std::unique_ptr<SilentPeers> silent_peers_;
  std::vector<std::unique_ptr<LoaderWorker>> workers_;
  std::vector<std::unique_ptr<CopyLane>> lanes_;
  std::vector<std::unique_ptr<NodeRouter>> routers_;
  std::vector<std::unique_ptr<WorkerTask>> tasks_;
  std::unique_ptr<CompressJobs> compress_;
  BlockTable blocks_{1 << 20};
  DeviceStateFile device_state_{"", {.stall_ns = SessionLimits{}.stall_ns}};
  std::unique_ptr<EpochChecker> checker_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<SessionControl> control_;
  uint64_t now_ns_ = 0;
  uint64_t allocations_ = 0;
};

}  // namespace migrx::sim

// The product's receiver behind a ReplayPort, put together as loader/app does it.
#pragma once

#include <memory>
#include <vector>

#include "bench/pipeline/guest_plan.h"
#include "bench/pipeline/memory.h"
#include "bench/pipeline/replay_port.h"
#include "dataplane/poll_core.h"
#include "loader/destination/device_state_file.h"
#include "loader/main/compress_jobs.h"
#include "loader/session/session.h"
#include "loader/session/session_control.h"

namespace migrx::bench {

// How a pool is shared out: a burst and what waits to be freed stay out of the connections' promises. It is
// the same for both families, so that they can be compared.
struct PoolPlan {
  uint32_t buffers = 0;
  uint32_t quota = 0;  // of each connection
};
// channels: without main. drop_every: as in ReplayOptions; the source keeps what was lost.
[[nodiscard]] PoolPlan plan_pool(uint32_t mtu, uint32_t pool_mib, uint32_t channels, uint32_t drop_every);

// Of a poll core with one replay port.
[[nodiscard]] PollCoreConfig poll_core_config(ReplayPort& port, uint32_t mtu, uint32_t channels,
                                              uint32_t quota);

class Receiver {
 public:
  // loader_cores: workers. All that is given outlives the receiver.
  Receiver(uint32_t mtu, const GuestPlan& plan, ReplayPort& port, const PageKernels& kernels,
           const HugeRegion& guest, uint32_t quota, uint32_t loader_cores);

  // One turn of everybody on the calling thread.
  void turn();
  // Until the source stands at its gate and every channel has said who it is; false: so many turns did not
  // suffice, or the session failed.
  [[nodiscard]] bool connect(const ReplayPort& port, uint64_t turns_max);
  [[nodiscard]] bool failed() const { return session->state() == SessionState::failed; }
  // The migration has come to its good end.
  [[nodiscard]] bool accepted() const {
    return control->over() && destination.verdict() == Verdict::accepted;
  }
  // Everything is over: buffers go home.
  void close();

  BlockTable blocks{1 << 20};
  DeviceStateFile destination{""};
  std::vector<std::unique_ptr<LoaderWorker>> workers;
  CompressJobs compress;
  Tenant tenant{{.port = ReplayPort::kListenPort}};
  std::unique_ptr<PollCore> core;
  std::unique_ptr<Session> session;
  std::unique_ptr<SessionControl> control;
  std::vector<Handoff*> connections;

 private:
  const uint32_t channels_;
};

}  // namespace migrx::bench

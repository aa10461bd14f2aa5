#include "bench/pipeline/receiver.h"

#include <algorithm>

#include "numa/clock.h"

namespace migrx::bench {

PoolPlan plan_pool(uint32_t mtu, uint32_t pool_mib, uint32_t channels, uint32_t drop_every) {
  constexpr uint32_t kBase = 2 * kBurst + 256 + 128;
  const auto fit = static_cast<uint32_t>((uint64_t{pool_mib} << 20) / ReplayPort::stride_of(mtu));
  const uint32_t spare = kBase + (drop_every == 0 ? 0 : fit / drop_every);
  const uint32_t fair = fit > spare ? (fit - spare) / (channels + 1) : 0;
  TcpConfig tcp;
  tcp.mss = static_cast<uint16_t>(mtu - 40);
  tcp.buffer_bytes = ReplayPort::buffer_bytes_of(mtu);
  // Enough to open TCP's window of 4 MiB is enough.
  const uint32_t most = tcp.window_bytes / ReplayPort::segment_bytes_of(mtu, false) + 64;
  PoolPlan plan;
  plan.quota = std::max(std::min(fair, most), buffer_quota_min(tcp));
  plan.buffers = std::max(fit, spare + (channels + 1) * plan.quota);
  return plan;
}

PollCoreConfig poll_core_config(ReplayPort& port, uint32_t mtu, uint32_t channels, uint32_t quota) {
  PollCoreConfig config;
  config.ports = {{&port, {PortAddress{port.receiver()}}, PollPort::kAnyVlan}};
  config.connections_max = channels + 1;
  config.handoff_slots = quota;
  config.tcp.mss = static_cast<uint16_t>(mtu - 40);
  config.tcp.buffer_bytes = port.buffer_bytes();
  config.announce = false;
  return config;
}

Receiver::Receiver(uint32_t mtu, const GuestPlan& plan, ReplayPort& port, const PageKernels& kernels,
                   const HugeRegion& guest, uint32_t quota, uint32_t loader_cores)
    : compress(0, 4, kernels), channels_(plan.channels()) {
  std::vector<LoaderWorker*> all;
  for (uint32_t i = 0; i < loader_cores; ++i) {
    workers.push_back(std::make_unique<LoaderWorker>(channels_ + 1));
    all.push_back(workers.back().get());
  }
  core = std::make_unique<PollCore>(poll_core_config(port, mtu, channels_, quota));
  core->request({TenantChange::Kind::open, &tenant});
  blocks.list().add(
      std::make_unique<RamBlock>(kBlockName, guest.data(), plan.guest_bytes(), true, true, kAnyNode));
  SessionSettings settings;
  settings.main.multifd_channels = channels_;
  settings.connections_max = channels_ + 1;
  settings.now_ns = [] { return monotonic_ns(); };
  session = std::make_unique<Session>(settings, blocks, destination.events(), kernels, compress);
  control = std::make_unique<SessionControl>(
      *session, destination,
      [this]() -> Handoff* {
        Handoff* const connection = core->take_accepted();
        if (connection != nullptr) connections.push_back(connection);
        return connection;
      },
      all, SessionLimits{});
}

void Receiver::turn() {
  const uint64_t now_ns = monotonic_ns();
  core->do_work(now_ns);
  for (const auto& worker : workers) worker->do_work(now_ns);
  control->do_work(now_ns);
}

bool Receiver::connect(const ReplayPort& port, uint64_t turns_max) {
  for (uint64_t i = 0; i < turns_max && !failed(); ++i) {
    if (port.at_gate() && session->multifd_identified() == channels_ && session->main_connection() != nullptr)
      return true;
    turn();
  }
  return false;
}

void Receiver::close() {
  for (Handoff* const connection : connections) connection->retire();
  core->on_stop();
}

}  // namespace migrx::bench

#include "loader/app/workers.h"

#include <algorithm>
#include <map>

#include "loader/app/address_list.h"
#include "loader/app/network.h"
#include "loader/app/setup_error.h"
#include "numa/clock.h"

namespace migrx {
namespace {

// Jobs that may wait per lane: pieces of one packet buffer each, so about two turns of a channel.
constexpr uint32_t kLaneJobs = 256;
constexpr uint32_t kLaneJobsPerTurn = 64;
// Compressed pages that may wait for each helper: 260 KiB.
constexpr uint32_t kCompressSlots = 64;

std::array<std::byte, 16> parse_uuid(const std::string& text) {
  std::array<std::byte, 16> uuid{};
  std::string digits;
  for (const char c : text)
    if (c != '-') digits.push_back(c);
  if (digits.size() != 32 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
    throw SetupError("--uuid " + text + ": expected 32 hexadecimal digits with dashes, as QEMU's -uuid");
  for (std::size_t i = 0; i < uuid.size(); ++i)
    uuid[i] = static_cast<std::byte>(std::stoul(digits.substr(2 * i, 2), nullptr, 16));
  return uuid;
}

Postcopy postcopy_of(const SessionOptions& options) {
  if (options.no_postcopy) return Postcopy::declined;
  if (!options.handoff) return Postcopy::no_handoff;
  if (options.handoff_form != "plain") return Postcopy::ignore_shared;
  if (options.dump_blocks) return Postcopy::read_back;
  if (std::find(options.capabilities.begin(), options.capabilities.end(), "x-colo") !=
      options.capabilities.end())
    return Postcopy::colo;
  return Postcopy::relayed;
}

}  // namespace

SessionSettings session_settings(const SessionOptions& options, uint32_t poll_cores) {
  SessionSettings settings;
  const auto has = [&](const char* name) {
    return std::find(options.capabilities.begin(), options.capabilities.end(), name) !=
           options.capabilities.end();
  };
  settings.main.multifd_channels = options.multifd_channels;
  settings.main.xbzrle = has("xbzrle");
  settings.main.compress = has("compress");
  settings.main.x_colo = has("x-colo");
  settings.main.switchover_ack = has("switchover-ack");
  settings.main.background_snapshot = has("background-snapshot");
  settings.main.postcopy = postcopy_of(options);
  if (options.multifd_flush_after_each_section)
    settings.main.multifd_flush_after_each_section =
        *options.multifd_flush_after_each_section ? FlushMode::section : FlushMode::round;
  settings.main.switchover_ack_legacy = options.switchover_ack_legacy;
  if (options.uuid) settings.main.uuid = parse_uuid(*options.uuid);
  if (!parse_multifd_compression(options.multifd_compression, settings.multifd_compression))
    throw SetupError("--multifd-compression " + options.multifd_compression + " is unknown");
  for (const std::string& text : options.source_nat) {
    IpNetwork network;
    if (!parse_network(text, network))
      throw SetupError("--source-nat " + text + ": expected a network such as 192.0.2.0/28");
    settings.source_nat.add(network);
  }
  // As many as poll cores may give it: with fewer, a channel of the source would wait until strangers are
  // gone.
  settings.connections_max = places_for(options.multifd_channels) * poll_cores;
  settings.now_ns = monotonic_ns;
  return settings;
}

class Workers::CompressTask final : public WorkerTask {
 public:
  explicit CompressTask(CompressWorker& worker) : worker_(worker) {}
  uint32_t do_work() noexcept override { return worker_.do_work(); }

 private:
  CompressWorker& worker_;
};

class Workers::LaneTask final : public WorkerTask {
 public:
  explicit LaneTask(CopyLane& lane) : lane_(lane) {}
  uint32_t do_work() noexcept override { return lane_.serve(kLaneJobsPerTurn); }

 private:
  CopyLane& lane_;
};

Workers::Workers(const Placement& placement, uint32_t channels_max) {
  std::string problem;
  kernels_ = select_page_kernels(problem);
  if (kernels_ == nullptr) throw SetupError(problem);
  std::vector<NodeId> nodes(placement.loader_agents, kAnyNode);
  for (const ThreadPlan& thread : placement.threads)
    for (const AgentPlan& agent : thread.agents)
      if (agent.role == AgentRole::loader) nodes[agent.index] = agent.node;

  for (uint32_t i = 0; i < placement.loader_agents; ++i)
    workers_.push_back(std::make_unique<LoaderWorker>(channels_max));
  // Main's own worker is among the helpers: it is not known yet which one that will be, and its
  // turn comes too.
  const uint32_t helpers = placement.loader_agents > 1 ? placement.loader_agents : 0;
  compress_ = std::make_unique<CompressJobs>(helpers, kCompressSlots, *kernels_);
  for (uint32_t i = 0; i < helpers; ++i) {
    tasks_.push_back(std::make_unique<CompressTask>(compress_->helper(i)));
    workers_[i]->add_task(*tasks_.back());
  }
  const bool several_nodes =
      std::any_of(nodes.begin(), nodes.end(), [&](NodeId node) { return node != nodes.front(); });
  if (!several_nodes) return;
  // One lane from each worker to one worker of every other node; senders of a node are spread
  // over its workers.
  std::map<NodeId, std::vector<uint32_t>> by_node;
  for (uint32_t i = 0; i < nodes.size(); ++i) by_node[nodes[i]].push_back(i);
  for (uint32_t from = 0; from < nodes.size(); ++from) {
    routers_.push_back(std::make_unique<NodeRouter>(nodes[from]));
    for (const auto& [node, candidates] : by_node) {
      if (node == nodes[from]) continue;
      lanes_.push_back(std::make_unique<CopyLane>(kLaneJobs, *kernels_));
      routers_.back()->add(node, *lanes_.back());
      tasks_.push_back(std::make_unique<LaneTask>(*lanes_.back()));
      workers_[candidates[from % candidates.size()]]->add_task(*tasks_.back());
    }
  }
}

Workers::~Workers() = default;

std::vector<LoaderWorker*> Workers::pointers() const {
  std::vector<LoaderWorker*> out;
  for (const auto& worker : workers_) out.push_back(worker.get());
  return out;
}

SessionSettings Workers::with_routers(SessionSettings settings) const {
  for (const auto& router : routers_) settings.routers.push_back(router.get());
  return settings;
}

std::vector<int> Workers::cpus(const Placement& placement) const {
  std::vector<int> cpus(workers_.size(), -1);
  for (const ThreadPlan& thread : placement.threads)
    for (const AgentPlan& agent : thread.agents)
      if (agent.role == AgentRole::loader) cpus[agent.index] = thread.cpu.value();
  return cpus;
}

}  // namespace migrx

#include "tests/sim/receiver.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "tests/sim/allocation_counter.h"

namespace migrx::sim {
namespace {

constexpr Ipv4Address kOurs{0x0a4d0002};
constexpr IpAddress kOurs6{0xfd00'0000'0000'0000, kOurs.value};

EthernetAddress our_mac() {
  return {{std::byte{2}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{2}}};
}

MultifdCompression compression_of(test::MultifdMethod method) {
  switch (method) {
    case test::MultifdMethod::none:
      return MultifdCompression::none;
    case test::MultifdMethod::zlib:
      return MultifdCompression::zlib;
    case test::MultifdMethod::zstd:
      return MultifdCompression::zstd;
    case test::MultifdMethod::qpl:
      return MultifdCompression::qpl;
    case test::MultifdMethod::uadk:
      return MultifdCompression::uadk;
  }
  return MultifdCompression::none;
}

}  // namespace

class Receiver::Task final : public WorkerTask {
 public:
  explicit Task(CompressWorker& worker) : compress_(&worker) {}
  Task(CopyLane& lane, uint32_t jobs) : lane_(&lane), jobs_(jobs) {}
  uint32_t do_work() noexcept override {
    return compress_ != nullptr ? compress_->do_work() : lane_->serve(jobs_);
  }

 private:
  CompressWorker* compress_ = nullptr;
  CopyLane* lane_ = nullptr;
  uint32_t jobs_ = 0;
};

// The large block, with a page of known bytes before and behind it.
class Receiver::Memory {
 public:
  explicit Memory(std::size_t bytes) : bytes_(bytes), room_(bytes + 3 * std::size_t{kPageBytes}) {
    const auto at = reinterpret_cast<uintptr_t>(room_.data());
    begin_ = room_.data() + (kPageBytes - at % kPageBytes) % kPageBytes + kPageBytes;
    std::memset(begin_ - kPageBytes, 0xa5, kPageBytes);
    std::memset(begin_ + bytes_, 0xa5, kPageBytes);
  }
  [[nodiscard]] std::byte* data() { return begin_; }
  [[nodiscard]] bool surroundings_untouched() const {
    const auto known = [](std::byte b) { return b == std::byte{0xa5}; };
    return std::all_of(begin_ - kPageBytes, begin_, known) &&
           std::all_of(begin_ + bytes_, begin_ + bytes_ + kPageBytes, known);
  }

 private:
  std::size_t bytes_;
  std::vector<std::byte> room_;
  std::byte* begin_;
};

Receiver::Receiver(const ReceiverOptions& options, const Source& source, Random& random) : source_(source) {
  std::string problem;
  const PageKernels* const kernels = select_page_kernels(problem);
  if (kernels == nullptr) throw std::runtime_error(problem);

  // Dataplane.
  const SourceOptions& from = source.options();
  const uint32_t connections = from.channels + 1 + options.connections_spare;
  TcpConfig tcp;
  tcp.mss = static_cast<uint16_t>(options.mtu - 40);
  tcp.buffer_bytes = options.buffer_bytes;
  tcp.window_bytes = options.window_bytes;
  const uint32_t quota = std::max(options.quota, buffer_quota_min(tcp));
  tcp.buffer_quota = quota;
  tcp.room_behind = testing::MemoryPool::room_behind;
  bound_silence(tcp, options.peer_timeout_ns);
  // The rule of dataplane/dpdk/pool.h without what only a device keeps.
  const uint32_t per_frame = (options.mtu + 22 + options.buffer_bytes - 1) / options.buffer_bytes;
  const uint32_t in_rings = (options.poll_cores - 1) * PollMesh::kRingFrames * per_frame;
  const uint32_t buffers = kBurst * per_frame + 256 + in_rings + connections * quota;
  if (options.poll_cores > 1)
    mesh_ = std::make_unique<PollMesh>(options.poll_cores, connections * options.poll_cores, random.next());
  TenantConfig tenant;
  tenant.port = kPort;
  tenant.places_reserved = from.channels + 1;
  tenant.first_bytes_ns = patience_ns(options.limits.identify_ns, options.limits.channels_ns);
  ListenerConfig listener;
  for (uint8_t& byte : listener.secret) byte = static_cast<uint8_t>(random.next());
  listener.syn_table_entries = options.syn_table_entries;
  listener.first_bytes_min = 4;
  for (uint32_t i = 0; i < options.poll_cores; ++i) {
    pools_.push_back(std::make_unique<testing::MemoryPool>(buffers, options.buffer_bytes));
    ports_.push_back(std::make_unique<Port>(options.port, *pools_[i], our_mac(), random.fork()));
    PollCoreConfig config;
    config.index = i;
    config.ports = {{ports_[i].get(), {PortAddress{kOurs}, PortAddress{kOurs6}}, PollPort::kAnyVlan}};
    config.connections_max = connections;
    config.handoff_slots = quota;
    config.tcp = tcp;
    config.listener = listener;
    config.mesh = mesh_.get();
    config.announce = false;
    cores_.push_back(std::make_unique<PollCore>(config));
    cores_[i]->on_start();
    tenants_.add(*cores_[i]);
  }
  silent_peers_ = tenants_.silent_peers(*tenants_.open(tenant));

  // Loader.
  SessionSettings settings;
  settings.main.multifd_channels = from.channels;
  settings.main.xbzrle = from.xbzrle;
  settings.main.compress = from.compress;
  settings.multifd_compression = compression_of(from.method);
  // Fewer than two poll cores have places, so that who finds none has to wait.
  settings.connections_max = connections;
  settings.now_ns = [this] { return now_ns_; };
  settings.silent_peers = silent_peers_.get();
  const uint32_t helpers = options.workers > 1 ? options.workers : 0;
  compress_ = std::make_unique<CompressJobs>(helpers, 4, *kernels);
  for (uint32_t i = 0; i < options.workers; ++i) {
    workers_.push_back(std::make_unique<LoaderWorker>(connections));
    if (i < helpers) {
      tasks_.push_back(std::make_unique<Task>(compress_->helper(i)));
      workers_[i]->add_task(*tasks_.back());
    }
  }
  const bool two_nodes = options.two_nodes && options.workers > 1;
  if (two_nodes) {
    // Worker i is on node i % 2. Small lanes: they run full.
    for (uint32_t i = 0; i < options.workers; ++i) {
      const auto home = static_cast<int32_t>(i % 2);
      routers_.push_back(std::make_unique<NodeRouter>(NodeId{home}));
      lanes_.push_back(std::make_unique<CopyLane>(8, *kernels));
      routers_.back()->add(NodeId{1 - home}, *lanes_.back());
      tasks_.push_back(std::make_unique<Task>(*lanes_.back(), options.lane_jobs));
      workers_[static_cast<uint32_t>(1 - home)]->add_task(*tasks_.back());
      settings.routers.push_back(routers_.back().get());
    }
  }
  // One block is prepared as --ram does, the others come with the stream's list.
  const SourceBlock& large = source.blocks().front();
  memory_ = std::make_unique<Memory>(large.image.size());
  const bool fresh = random.chance(0.7);
  if (!fresh) std::memset(memory_->data(), 0x77, large.image.size());
  blocks_.list().add(std::make_unique<RamBlock>(large.idstr, memory_->data(), large.image.size(),
                                                /*file_backed=*/true, fresh,
                                                two_nodes ? NodeId{0} : kAnyNode));
  checker_ = std::make_unique<EpochChecker>(device_state_.events(), source, blocks_.list());
  session_ = std::make_unique<Session>(settings, blocks_, *checker_, *kernels, *compress_);
  std::vector<LoaderWorker*> pointers;
  for (const auto& worker : workers_) pointers.push_back(worker.get());
  control_ = std::make_unique<SessionControl>(
      *session_, device_state_,
      [this]() -> Handoff* {
        for (const auto& core : cores_)
          if (Handoff* const connection = core->take_accepted()) return connection;
        return nullptr;
      },
      pointers, options.limits);
}

Receiver::~Receiver() {
  for (const auto& core : cores_) core->on_stop();
}

uint32_t Receiver::agents() const {
  return static_cast<uint32_t>(cores_.size() + workers_.size() + 1);
}

bool Receiver::is_worker(uint32_t i) const {
  return i >= cores_.size() && i < cores_.size() + workers_.size();
}

uint32_t Receiver::turn(uint32_t i, uint64_t now_ns) {
  now_ns_ = now_ns;
  if (i == cores_.size() + workers_.size()) return control_->do_work(now_ns);
  Agent& agent = i < cores_.size() ? static_cast<Agent&>(*cores_[i]) : *workers_[i - cores_.size()];
  // Before the first epoch closes the main channel's worker makes what the list of blocks asks for.
  const bool data_path = epochs_checked() > 0;
  const uint64_t before = allocations();
  const uint32_t work = agent.do_work(now_ns);
  if (data_path && !session_->over()) allocations_ += allocations() - before;
  return work;
}

uint64_t Receiver::epochs_checked() const {
  return checker_->epochs();
}
const std::string& Receiver::difference() const {
  return checker_->difference();
}

bool Receiver::knows(const IpAddress& source) const {
  return session_->identified() > 0 && !session_->admission().is_stranger(source);
}

std::string Receiver::compare_final() const {
  if (!memory_->surroundings_untouched()) return "bytes outside of a block were written";
  if (checker_->epochs() != source_.epochs().size())
    return "closed " + std::to_string(checker_->epochs()) + " epochs of " +
           std::to_string(source_.epochs().size());
  for (const SourceBlock& block : source_.blocks()) {
    const RamBlock* const ram = blocks_.list().find(block.idstr);
    if (ram == nullptr) return "block " + block.idstr + " is missing";
    if (std::memcmp(ram->host(), block.image.data(), block.image.size()) != 0)
      return "block " + block.idstr + " differs from the guest's at the end";
  }
  return {};
}

void Receiver::retire() {
  for (const auto& channel : session_->channels()) channel->connection().retire();
}

uint32_t Receiver::connections_in_use() const {
  uint32_t sum = 0;
  for (const auto& core : cores_) sum += core->connections_in_use();
  return sum;
}

uint32_t Receiver::buffers_out() const {
  uint32_t sum = 0;
  for (const auto& pool : pools_) sum += pool->total() - pool->available();
  return sum;
}

void Receiver::take_buffers(uint32_t leave) {
  for (const auto& pool : pools_)
    while (pool->available() > leave) taken_.push_back(pool->alloc());
}

void Receiver::give_buffers_back() {
  for (testing::MemoryPool::Buffer* const buffer : taken_) testing::MemoryPool::release(buffer);
  taken_.clear();
}

uint64_t Receiver::serving() const {
  uint64_t sum = 0;
  for (const auto& worker : workers_) sum += worker->serving();
  return sum;
}

uint64_t Receiver::read(TcpCounter counter) const {
  uint64_t sum = 0;
  for (const auto& core : cores_) sum += core->tcp_counters().read(counter);
  return sum;
}

std::string Receiver::counters() const {
  std::string out;
  for (std::size_t i = 0; i < kTcpCounterInfo.size(); ++i) {
    const uint64_t sum = read(static_cast<TcpCounter>(i));
    if (sum > 0)
      out += (out.empty() ? "" : " ") + std::string(kTcpCounterInfo[i].name) + "=" + std::to_string(sum);
  }
  return out;
}

}  // namespace migrx::sim

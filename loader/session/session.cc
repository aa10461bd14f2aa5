#include "loader/session/session.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace migrx {
namespace {

uint64_t address_of(const Handoff& connection) noexcept {
  constexpr uint64_t kKnown = uint64_t{1} << 32;
  return kKnown | connection.peer_address;
}

}  // namespace

const char* to_string(SessionState state) noexcept {
  switch (state) {
    case SessionState::listening:
      return "listening";
    case SessionState::setup:
      return "setup";
    case SessionState::precopy:
      return "precopy";
    case SessionState::switchover:
      return "switchover";
    case SessionState::device_state:
      return "device state";
    case SessionState::colo:
      return "COLO";
    case SessionState::done:
      return "done";
    case SessionState::failed:
      return "failed";
  }
  return "?";
}

Session::Session(SessionSettings settings, BlockTable& blocks, MainEvents& outgoing,
                 const PageKernels& kernels, CompressJobs& compress)
    : ForwardingEvents(outgoing),
      settings_(std::move(settings)),
      blocks_(blocks),
      kernels_(kernels),
      barrier_(settings_.main.multifd_channels),
      roster_(settings_.main.multifd_channels, settings_.main.uuid),
      compress_(compress),
      multifd_connections_(std::make_unique<std::atomic<Handoff*>[]>(settings_.main.multifd_channels + 1)) {
  multifd_.resize(settings_.main.multifd_channels);
  channels_.reserve(settings_.connections_max);
}

Session::~Session() = default;

Channel* Session::add_connection(Handoff& connection, uint32_t worker) {
  if (channels_.size() >= settings_.connections_max) return nullptr;
  channels_.push_back(std::make_unique<Channel>(connection, *this, worker));
  return channels_.back().get();
}

void Session::remove_connection(const Channel& channel) {
  std::erase_if(channels_, [&](const std::unique_ptr<Channel>& held) { return held.get() == &channel; });
}

SessionState Session::state() const noexcept {
  if (error_.is_set()) return SessionState::failed;
  if (done_.load(std::memory_order_acquire)) return SessionState::done;
  if (settings_.colo != nullptr && settings_.colo->stage() > ColoSecondary::Stage::migrating)
    return SessionState::colo;
  if (moments_.ram_complete.load(std::memory_order_acquire) != 0) return SessionState::device_state;
  if (moments_.switchover.load(std::memory_order_relaxed) != 0) return SessionState::switchover;
  if (moments_.blocks_known.load(std::memory_order_acquire) != 0) return SessionState::precopy;
  if (moments_.first_channel.load(std::memory_order_relaxed) != 0) return SessionState::setup;
  return SessionState::listening;
}

ChannelParser* Session::identify(std::span<const std::byte, kMagicBytes> magic, Handoff& connection,
                                 uint32_t worker) noexcept {
  constexpr uint32_t kMainMagic = 0x5145564d;  // QEMU_VM_FILE_MAGIC, migration/savevm.h
  constexpr uint32_t kTlsPrefix = 0x1603;      // a ClientHello: handshake record, version 3.x

  // Behind RAM END the source has nothing more to connect for, and a stranger must not spoil what is done.
  if (moments_.ram_complete.load(std::memory_order_acquire) != 0) return nullptr;
  const uint32_t found = load_be32(magic.data());
  const NodeRouter* const router = worker < settings_.routers.size() ? settings_.routers[worker] : nullptr;
  if (found == kMainMagic || found == kMultifdMagic) {
    if (!belongs(connection)) return nullptr;
    stamp(moments_.first_channel);
  }
  if (found == kMainMagic) {
    if (!main_claimed_.exchange(true, std::memory_order_relaxed)) {
      main_ = std::make_unique<MainChannel>(settings_.main, static_cast<MainEvents&>(*this), blocks_.list(),
                                            barrier_, compress_, kernels_, router, settings_.colo);
      main_connection_.store(&connection, std::memory_order_release);
      return main_.get();
    }
    return nullptr;  // another source: refused, and the migration under way goes on
  }
  if (found == kMultifdMagic) {
    const uint32_t i = multifd_claimed_.fetch_add(1, std::memory_order_acq_rel);
    if (i < multifd_.size()) {
      MultifdSession shared;
      shared.roster = &roster_;
      shared.barrier = &barrier_;
      shared.blocks = &blocks_.list();
      shared.kernels = &kernels_;
      shared.compression = settings_.multifd_compression;
      multifd_[i] = std::make_unique<MultifdChannel>(shared, router);
      multifd_connections_[i].store(&connection, std::memory_order_release);
      return multifd_[i].get();
    }
    multifd_claimed_.fetch_sub(1, std::memory_order_acq_rel);
    const auto expected = static_cast<uint32_t>(multifd_.size());
    fail(make_error_values(ErrorClass::mismatch, 0, "multifd channel: count", expected + 1, expected,
                           expected == 0
                               ? "the source uses multifd: give --multifd-channels its number, or turn the "
                                 "capability multifd off there"
                               : "the source opens more channels than --multifd-channels says: make both "
                                 "equal (parameter multifd-channels at the source)"));
    return nullptr;
  }
  // A scanner does the same, so it ends nothing: the source, if it is the source, hears a reset.
  if (found >> 16 == kTlsPrefix) tls_peer_.store(address_of(connection), std::memory_order_relaxed);
  return nullptr;
}

std::optional<uint32_t> Session::take_tls_peer() noexcept {
  const uint64_t peer = tls_peer_.exchange(0, std::memory_order_relaxed);
  return peer == 0 ? std::nullopt : std::optional{static_cast<uint32_t>(peer)};
}

bool Session::is_stranger(const Handoff& connection) const noexcept {
  const uint64_t source = source_address_.load(std::memory_order_relaxed);
  return source != 0 && source != address_of(connection);
}

bool Session::belongs(const Handoff& connection) noexcept {
  const uint64_t theirs = address_of(connection);
  uint64_t source = 0;
  return source_address_.compare_exchange_strong(source, theirs, std::memory_order_relaxed) ||
         source == theirs;
}

std::string Session::standing() const {
  std::string out =
      "main met " + std::to_string(barrier_.epochs_released()) + " barriers at byte " +
      std::to_string(main_connection() != nullptr ? main_connection()->bytes_received.read() : 0);
  for (uint32_t i = 0; i < multifd_.size(); ++i) {
    const Handoff* const connection = multifd_connection(i);
    const int32_t id = connection != nullptr ? multifd_[i]->id() : -1;
    if (connection == nullptr)
      out += ", one multifd channel missing";
    else if (id < 0)
      out += ", one multifd channel without an id";
    else
      out += ", multifd " + std::to_string(id) + " met " +
             std::to_string(barrier_.epochs_arrived(static_cast<uint32_t>(id))) + " at byte " +
             std::to_string(connection->bytes_received.read());
  }
  return out;
}

void Session::stamp(std::atomic<uint64_t>& moment) const {
  if (moment.load(std::memory_order_relaxed) == 0)
    moment.store(settings_.now_ns(), std::memory_order_release);
}

bool Session::writable() noexcept {
  // Half of the ring is kept for one item's events; a flood of PINGs therefore parks main instead of being
  // lost.
  return events_.size() < events_.capacity() / 2 && next().writable();
}

StreamError Session::on_configuration(const Configuration& configuration) {
  source_machine_ = configuration.machine;
  return next().on_configuration(configuration);
}

StreamError Session::on_command(MigCommand command, Bytes payload) {
  // Taken for an ordinary migration, a COLO source would wait for ever for the answer to its first
  // checkpoint.
  if (command == MigCommand::enable_colo && settings_.colo == nullptr)
    return make_error(
        ErrorClass::unsupported, 0, "command",
        "ENABLE_COLO: nobody here keeps checkpoints; turn the capability x-colo off at the source");
  if (command == MigCommand::open_return_path)
    (void)events_.push({SessionEvent::Kind::return_path_opened, 0});
  if (command == MigCommand::ping) (void)events_.push({SessionEvent::Kind::ping, load_be32(payload.data())});
  if (command == MigCommand::switchover_start) stamp(moments_.switchover);
  return next().on_command(command, payload);
}

StreamError Session::on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) {
  if (StreamError error = blocks_.resolve(blocks)) return error;
  if (StreamError error = next().on_ram_start(section, blocks)) return error;
  stamp(moments_.blocks_known);
  return {};
}

void Session::on_ram_section_begin(SectionType type, uint32_t section_id) noexcept {
  if (type == SectionType::end) stamp(moments_.switchover);
  next().on_ram_section_begin(type, section_id);
}

void Session::on_ram_complete() noexcept {
  next().on_ram_complete();
  (void)events_.push({SessionEvent::Kind::ram_complete, 0});
  stamp(moments_.ram_complete);
}

std::size_t Session::on_tail(Bytes bytes) noexcept {
  const std::size_t taken = next().on_tail(bytes);
  if (taken > 0) {
    stamp(moments_.first_tail);
    moments_.last_tail.store(settings_.now_ns(), std::memory_order_relaxed);
  }
  return taken;
}

}  // namespace migrx

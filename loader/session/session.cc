#include "loader/session/session.h"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstring>
#include <utility>

#include "dataplane/wire/address_text.h"
#include "loader/main/machine_type.h"
#include "loader/main/main_preamble.h"

namespace migrx {
namespace {

// The main channel's greeting is read again with each so many bytes more; a usual one has 60 to 300.
constexpr std::size_t kPreambleStep = 64;

constexpr uint32_t kMainMagic = 0x5145564d;  // QEMU_VM_FILE_MAGIC, migration/savevm.h

Introduction refused(uint32_t magic) noexcept {
  return magic == kMultifdMagic ? Introduction::refused_multifd(kMultifdInitBytes) : Introduction{};
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
    case SessionState::postcopy:
      return "postcopy";
    case SessionState::postcopy_paused:
      return "postcopy-paused";
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
      admission_(settings_.main.multifd_channels, settings_.main.uuid, settings_.silent_peers != nullptr),
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
  if (settings_.security != nullptr) settings_.security->forget(channel.connection());
  std::erase_if(channels_, [&](const std::unique_ptr<Channel>& held) { return held.get() == &channel; });
}

SessionState Session::state() const noexcept {
  if (error_.is_set()) return SessionState::failed;
  if (done_.load(std::memory_order_acquire)) return SessionState::done;
  if (settings_.colo != nullptr && settings_.colo->stage() > ColoSecondary::Stage::migrating)
    return SessionState::colo;
  if (in_postcopy())
    return paused_.load(std::memory_order_acquire) ? SessionState::postcopy_paused : SessionState::postcopy;
  if (moments_.ram_complete.load(std::memory_order_acquire) != 0) return SessionState::device_state;
  if (moments_.switchover.load(std::memory_order_relaxed) != 0) return SessionState::switchover;
  if (moments_.blocks_known.load(std::memory_order_acquire) != 0) return SessionState::precopy;
  if (moments_.first_channel.load(std::memory_order_relaxed) != 0) return SessionState::setup;
  return SessionState::listening;
}

void Session::fail(const StreamError& error) noexcept {
  StreamError told = error;
  // A source whose channel was refused gives up; only it knows why.
  if (error.error_class == ErrorClass::truncated && admission_.surplus() > 0) {
    const std::size_t used = std::strlen(told.text.data());
    std::snprintf(told.text.data() + used, told.text.size() - used,
                  "%smultifd channel %u was refused before, as one too many: if that was this source's, set "
                  "--multifd-channels to the source's parameter multifd-channels (0: multifd off)",
                  used > 0 ? "; " : "", admission_.surplus_id().number());
  }
  const std::optional<IpAddress> elsewhere = elsewhere_.get();
  const bool somebody_is_missing = error.error_class == ErrorClass::truncated ||
                                   error.error_class == ErrorClass::mismatch ||
                                   error.error_class == ErrorClass::timed_out;
  if (somebody_is_missing && elsewhere && !admission_.complete()) {
    const std::size_t used = std::strlen(told.text.data());
    std::snprintf(told.text.data() + used, told.text.size() - used,
                  "%sa channel from another address, %s, was refused: if a NAT gives this source "
                  "several addresses, name their network with --source-nat",
                  used > 0 ? "; " : "", IpAddressText(*elsewhere).c_str());
  }
  error_.set(told);
}

Introduction Session::identify(Bytes greeting, Handoff& connection, uint32_t worker) noexcept {
  constexpr uint32_t kTlsPrefix = 0x1603;  // a ClientHello: handshake record, version 3.x
  if (greeting.size() < kMagicBytes) return Introduction::needs(kMagicBytes);
  const uint32_t found = load_be32(greeting.data());
  const bool tls = found >> 16 == kTlsPrefix;
  if (settings_.security == nullptr && !tls) return identify_stream(greeting, connection, worker);
  // A session that is over asks only what it has to reset last: what TLS hides may be a multifd channel.
  if (over() && tls) return Introduction::refused_multifd(kMultifdInitBytes);
  if (over() || ram_is_here()) return refused(found);
  if (settings_.security != nullptr && tls) {
    ChannelParser* const parser = settings_.security->accept(connection, worker, inside_);
    return parser != nullptr ? Introduction::as(*parser) : Introduction{};
  }
  // A scanner does the same, so it ends nothing: the source, if it is the source, hears a reset.
  if (tls || found == kMainMagic || found == kMultifdMagic) misled_peer_.set(connection.peer_address);
  return refused(found);
}

Introduction Session::identify_stream(Bytes greeting, Handoff& connection, uint32_t worker) noexcept {
  if (greeting.size() < kMagicBytes) return Introduction::needs(kMagicBytes);
  const uint32_t found = load_be32(greeting.data());
  if (over() || ram_is_here()) return refused(found);
  if (found == kMainMagic) return identify_main(greeting, connection, worker);
  if (found == kMultifdMagic) return identify_multifd(greeting, connection, worker);
  if (in_postcopy() && found >> 8 == ResumedChannel::kPrefix) return identify_resumed(connection);
  return in_postcopy() ? identify_preempt(connection) : Introduction{};
}

// Until its predecessor is out of the way it waits, unread.
Introduction Session::identify_resumed(Handoff& connection) {
  if (is_stranger(connection)) return {};
  if (!resumable_.load(std::memory_order_acquire)) {
    resume_wanted_.store(true, std::memory_order_release);
    return {Introduction::Kind::waits, 0, nullptr};
  }
  resumed_ = std::make_unique<ResumedChannel>(next());
  preempt_taken_.store(false, std::memory_order_relaxed);  // the source makes that channel anew, too
  main_connection_.store(&connection, std::memory_order_release);
  resumable_.store(false, std::memory_order_release);  // pairs with resumed()
  return Introduction::as(*resumed_);
}

// No magic tells it: what the source opens beside its other channels, and says in postcopy.
Introduction Session::identify_preempt(const Handoff& connection) {
  // Pages that the guest waits for would get nowhere: the source hears a reset, and pauses.
  if (settings_.urgent_pages == nullptr || !settings_.urgent_pages->wanted()) return {};
  if (is_stranger(connection)) return {};
  if (preempt_taken_.exchange(true, std::memory_order_acq_rel)) return {};
  preempt_ = std::make_unique<PreemptChannel>(*settings_.urgent_pages);
  return Introduction::as(*preempt_);
}

Introduction Session::identify_main(Bytes greeting, Handoff& connection, uint32_t worker) {
  std::optional<MultifdUuid> uuid;
  // No uuid matters when all are here, or when the first to come is all that is expected.
  const bool matters =
      !admission_.complete() && (settings_.main.multifd_channels > 0 || settings_.main.uuid.has_value());
  if (matters && read_main_uuid(greeting, uuid) == PreambleStatus::need_more &&
      greeting.size() < kGreetingMax)
    return Introduction::needs(std::min(greeting.size() + kPreambleStep, kGreetingMax));
  const AdmissionAnswer answer = admission_.main(applicant(connection), uuid, settings_.now_ns());
  if (answer.verdict == AdmissionVerdict::stranger) {
    rival_.set(connection.peer_address);
    note_elsewhere(connection);
  }
  return introduce_main(answer, connection, worker);
}

Applicant Session::applicant(const Handoff& connection) const noexcept {
  return {&connection, settings_.source_nat.source_of(connection.peer_address), connection.opened_ns};
}

// Refused only for where it comes from, while a channel is missing: what it says of itself would do.
void Session::note_elsewhere(const Handoff& connection) noexcept {
  if (admission_.complete() || !is_stranger(connection)) return;
  elsewhere_.set(connection.peer_address);
}

Introduction Session::ask_again(Handoff& connection, uint32_t worker) noexcept {
  if (in_postcopy()) return identify_resumed(connection);
  return introduce_main(admission_.again(applicant(connection), settings_.now_ns()), connection, worker);
}

Introduction Session::left(const Handoff& connection, StreamEnd end) noexcept {
  if (in_postcopy()) return {};
  AdmissionAnswer answer = admission_.left(applicant(connection), end == StreamEnd::fin);
  answer.error.channel = ChannelName::main();
  if (answer.verdict == AdmissionVerdict::conflict) fail(answer.error);
  return {
      answer.verdict == AdmissionVerdict::waits ? Introduction::Kind::waits : Introduction::Kind::stranger, 0,
      nullptr};
}

Introduction Session::introduce_main(const AdmissionAnswer& answer, Handoff& connection, uint32_t worker) {
  switch (answer.verdict) {
    case AdmissionVerdict::stranger:
    case AdmissionVerdict::surplus:
      break;
    case AdmissionVerdict::conflict:
      fail(answer.error);
      break;
    case AdmissionVerdict::waits:
      stamp(moments_.first_channel);
      return {Introduction::Kind::waits, 0, nullptr};
    case AdmissionVerdict::admitted:
      stamp(moments_.first_channel);
      main_ = std::make_unique<MainChannel>(settings_.main, static_cast<MainEvents&>(*this), blocks_.list(),
                                            barrier_, compress_, kernels_, router_of(worker), settings_.colo);
      main_connection_.store(&connection, std::memory_order_release);
      return Introduction::as(*main_);
  }
  return {};
}

Introduction Session::identify_multifd(Bytes greeting, Handoff& connection, uint32_t worker) {
  if (greeting.size() < kMultifdInitBytes) return Introduction::needs(kMultifdInitBytes);
  MultifdInit init;
  if (const StreamError error = parse_multifd_init(greeting.data(), 0, init)) {
    if (!admission_.complete() && !is_stranger(connection)) fail(error);
    return refused(kMultifdMagic);
  }
  const AdmissionAnswer answer = admission_.channel(applicant(connection), init, settings_.now_ns());
  if (answer.verdict == AdmissionVerdict::conflict) fail(answer.error);
  if (answer.verdict == AdmissionVerdict::stranger) note_elsewhere(connection);
  if (answer.verdict == AdmissionVerdict::surplus)
    return Introduction::refused_multifd(kMultifdInitBytes, Claim::surplus);
  if (answer.verdict != AdmissionVerdict::admitted) {
    const bool right_guest = !settings_.main.uuid || init.uuid == *settings_.main.uuid;
    const bool elsewhere = right_guest && !admission_.complete() && is_stranger(connection);
    return Introduction::refused_multifd(kMultifdInitBytes, elsewhere ? Claim::elsewhere : Claim::none);
  }
  stamp(moments_.first_channel);
  MultifdSession shared;
  shared.rounds = &rounds_;
  shared.barrier = &barrier_;
  shared.blocks = &blocks_.list();
  shared.kernels = &kernels_;
  shared.compression = settings_.multifd_compression;
  const uint32_t place = init.id.number();
  multifd_[place] = std::make_unique<MultifdChannel>(shared, router_of(worker));
  multifd_connections_[place].store(&connection, std::memory_order_release);
  return Introduction::as(*multifd_[place]);
}

std::optional<IpAddress> Session::take_misled_peer() noexcept {
  return misled_peer_.take();
}

bool Session::is_rival(const Handoff& connection) const noexcept {
  return rival_.get() == connection.peer_address;
}

bool Session::surplus_is_own() const noexcept {
  if (main_connection() == nullptr || admission_.rivals() > 0 || unheard()) return false;
  return settings_.main.multifd_channels > 0 || main_->pages_with_content() == 0;
}

void Session::fail_for_surplus() noexcept {
  fail(admission_.too_many(admission_.surplus_id()));
}

std::string Session::standing() const {
  std::string out =
      "main met " + std::to_string(barrier_.epochs_released()) + " barriers at byte " +
      std::to_string(main_connection() != nullptr ? main_connection()->bytes_received.read() : 0);
  for (uint32_t i = 0; i < multifd_.size(); ++i) {
    const Handoff* const connection = multifd_connection(i);
    out += ", multifd " + std::to_string(i);
    if (connection == nullptr)
      out += " missing";
    else
      out += " met " + std::to_string(barrier_.epochs_arrived(MultifdId{i})) + " at byte " +
             std::to_string(connection->bytes_received.read());
  }
  return out;
}

void Session::stamp(std::atomic<uint64_t>& moment) const {
  if (moment.load(std::memory_order_relaxed) == 0)
    moment.store(settings_.now_ns(), std::memory_order_release);
}

void Session::tell(const SessionEvent& event) noexcept {
  [[maybe_unused]] const bool there_was_room = events_.push(event);
  assert(there_was_room);  // writable() kept half of the ring for one item's events
}

bool Session::writable() noexcept {
  // Half of the ring is kept for one item's events; a flood of PINGs therefore parks main instead
  // of being lost.
  return events_.size() < events_.capacity() / 2 && next().writable();
}

StreamError Session::on_configuration(const Configuration& configuration) {
  source_machine_ = configuration.machine;
  return next().on_configuration(configuration);
}

OwedAck Session::owed_ack() const noexcept {
  if (!settings_.main.switchover_ack) return OwedAck::none;
  const std::optional<bool> legacy = settings_.main.switchover_ack_legacy
                                         ? settings_.main.switchover_ack_legacy
                                         : switchover_ack_is_legacy(source_machine_);
  if (!legacy) return OwedAck::one_perhaps;
  return *legacy ? OwedAck::one : OwedAck::none;
}

StreamError Session::on_command(MigCommand command, Bytes payload) {
  // Taken for an ordinary migration, a COLO source would wait for ever for the answer to
  // its first checkpoint.
  if (command == MigCommand::enable_colo && settings_.colo == nullptr)
    return make_error(
        ErrorClass::unsupported, 0, "command",
        "ENABLE_COLO: no checkpoints are kept here; turn the capability x-colo off at the source");
  if (command == MigCommand::open_return_path)
    tell({SessionEvent::Kind::return_path_opened, static_cast<uint32_t>(owed_ack())});
  if (command == MigCommand::ping) tell({SessionEvent::Kind::ping, load_be32(payload.data())});
  if (command == MigCommand::switchover_start) stamp(moments_.switchover);
  if (command == MigCommand::postcopy_advise && !payload.empty())
    postcopy_advised_.store(true, std::memory_order_release);
  return next().on_command(command, payload);
}

StreamError Session::on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) {
  if (StreamError error = blocks_.resolve(blocks)) return error;
  if (StreamError error = next().on_ram_start(section, blocks)) return error;
  stamp(moments_.blocks_known);
  return {};
}

void Session::on_ram_section_begin(SectionType type, uint32_t section_id) noexcept {
  stamp(moments_.first_pass);
  if (type == SectionType::end) stamp(moments_.switchover);
  next().on_ram_section_begin(type, section_id);
}

bool Session::pages_are_missing() const noexcept {
  // Pages of a source with multifd come over its channels, and those were refused here: RAM has nothing of
  // them. (Main's own counters lag by one piece of stream.)
  const bool nothing_came =
      settings_.main.multifd_channels == 0 && admission_.surplus() > 0 && main_->pages_with_content() == 0;
  const bool some_dropped = surplus_used_.load(std::memory_order_acquire);
  return nothing_came || (some_dropped && surplus_is_own());
}

// The door is shut at the last moment at which the source still has all of the guest.
StreamError Session::on_postcopy() {
  if (pages_are_missing()) fail_for_surplus();
  if (StreamError error = next().on_postcopy()) return error;
  if (!settle()) return error_.get();
  stamp(moments_.switchover);
  stamp(moments_.postcopy);
  return {};
}

void Session::on_ram_complete() noexcept {
  if (pages_are_missing()) return fail_for_surplus();
  next().on_ram_complete();
  tell({SessionEvent::Kind::ram_complete, 0});
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

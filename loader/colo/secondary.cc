#include "loader/colo/secondary.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "loader/main/commands.h"
#include "numa/guest_memory.h"

namespace migrx {
namespace {

// Device state of a checkpoint ends with EOF and no VM description; an empty one (06, be32 length, JSON) lets
// whoever gets it see the end, as after an ordinary migration. QEMU reads and ignores it.
constexpr std::array<std::byte, 7> kEmptyDescription{
    std::byte{6}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{2}, std::byte{'{'}, std::byte{'}'}};

}  // namespace

ColoSecondary::ColoSecondary(MainEvents& outgoing, RamBlockList& blocks, const PageKernels& kernels,
                             std::function<uint64_t()> available)
    : ForwardingEvents(outgoing), blocks_(blocks), available_(std::move(available)), cache_(kernels) {}

ColoSecondary::~ColoSecondary() = default;

std::string ColoSecondary::room_for(uint64_t bytes) const {
  const uint64_t available = available_();
  if (bytes <= available) return {};
  return "x-colo needs a cache as large as the guest's RAM: " + std::to_string(bytes >> 20) +
         " MiB more, and this host has " + std::to_string(available >> 20) +
         " MiB available: free memory (vm.nr_hugepages beyond what guests use counts as used), or turn "
         "x-colo "
         "off at the source (migrate_set_capability x-colo off) and leave --capability x-colo out";
}

std::string ColoSecondary::reserve() {
  uint64_t bytes = states_.size() * kColoStateBytesMax;
  for (std::size_t i = 0; i < blocks_.size(); ++i) bytes += blocks_[i].used_length();
  if (std::string problem = room_for(bytes); !problem.empty()) return problem;
  std::string problem;
  for (DeviceState& state : states_) {
    state.memory = PrivateMemory::allocate(kColoStateBytesMax, problem);
    if (state.memory == nullptr) return "no memory for COLO's device state: " + problem;
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    if (problem = cache_.add(blocks_[i]); !problem.empty())
      return "no memory for the COLO cache of block " + blocks_[i].idstr() + ": " + problem;
  return {};
}

// ---- The initial migration

bool ColoSecondary::writable() noexcept {
  // From RAM's END on nothing is passed on.
  return in_end_ || next().writable();
}

StreamError ColoSecondary::on_command(MigCommand command, Bytes payload) {
  if (command == MigCommand::open_return_path) return_path_ = true;
  if (command == MigCommand::enable_colo) {
    if (ram_started_ || enabled())
      return make_error(ErrorClass::bad_stream, 0, "command", "ENABLE_COLO: %s",
                        enabled() ? "sent twice" : "after the START section of RAM");
    stage_.store(Stage::migrating, std::memory_order_release);
  }
  if (enabled() && return_path_)
    return make_error(
        ErrorClass::mismatch, 0, "command",
        "ENABLE_COLO with an open return path: COLO's messages take its place on the main connection, and a "
        "source with both closes it when COLO begins; turn the capability return-path off at the source");
  if (command == MigCommand::enable_colo || in_end_) {
    if (command == MigCommand::enable_colo || command == MigCommand::switchover_start) return {};
    return make_error(ErrorClass::bad_stream, 0, "command", "%s after the end of RAM", to_string(command));
  }
  return next().on_command(command, payload);
}

StreamError ColoSecondary::on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) {
  ram_started_ = true;
  // QEMU since 11.1 announces COLO no more and keeps the return path for it. Taken for an ordinary migration,
  // it would stop its guest for checkpoints that nobody answers.
  if (!enabled())
    return make_error(
        ErrorClass::unsupported, 0, "RAM section: START",
        "no ENABLE_COLO came, but the capability x-colo is on here: turn it off here if it is off at the "
        "source; COLO "
        "of QEMU 11.1 and newer, which sends no ENABLE_COLO, is not supported: turn x-colo off at both");
  if (StreamError error = next().on_ram_start(section, blocks)) return error;
  uint64_t bytes = 0;
  for (std::size_t i = 0; i < blocks_.size(); ++i) bytes += blocks_[i].used_length();
  if (const std::string problem = room_for(bytes - cache_.bytes()); !problem.empty())
    return make_error(ErrorClass::io, 0, "ram block list: COLO cache", "%s", problem.c_str());
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    if (const std::string problem = cache_.add(blocks_[i]); !problem.empty())
      return make_error(ErrorClass::io, 0, "ram block list: COLO cache", "no memory for block %s: %s",
                        blocks_[i].idstr().c_str(), problem.c_str());
  cache_.target_ram(blocks_);
  return {};
}

void ColoSecondary::on_ram_section_begin(SectionType type, uint32_t section_id) noexcept {
  if (enabled() && type == SectionType::end) {
    in_end_ = true;
    ram_section_ = section_id;
  }
  if (!in_end_) next().on_ram_section_begin(type, section_id);
}

void ColoSecondary::on_ram_section_end(SectionType type, uint32_t section_id, bool has_footer) noexcept {
  if (in_end_)
    end_has_footer_ = has_footer;
  else
    next().on_ram_section_end(type, section_id, has_footer);
}

void ColoSecondary::on_epoch_closed(Epoch epoch) noexcept {
  if (!in_end_) next().on_epoch_closed(epoch);
}

void ColoSecondary::on_ram_complete() noexcept {
  if (!in_end_) next().on_ram_complete();
}

std::size_t ColoSecondary::on_tail(Bytes bytes) noexcept {
  if (!enabled()) return next().on_tail(bytes);
  if (kColoStateBytesMax - coming().bytes < bytes.size()) {
    too_long_ = true;
    return bytes.size();
  }
  detector_.feed(bytes);
  state_bytes(bytes);
  return bytes.size();
}

bool ColoSecondary::copy_some() noexcept {
  return stage() != Stage::migrating || cache_.copy_to_cache();
}

ColoEvents::Tail ColoSecondary::tail() const noexcept {
  if (too_long_) return Tail::too_long;
  return detector_.complete() ? Tail::ended : Tail::more;
}

void ColoSecondary::begin_checkpoints() noexcept {
  cache_.target_cache(blocks_);
  finished_ = 1 - finished_;
  stage_.store(Stage::waiting, std::memory_order_release);  // pairs with stage()
}

// ---- Checkpoints

void ColoSecondary::state_bytes(Bytes bytes) noexcept {
  DeviceState& state = coming();
  std::memcpy(state.memory->data() + state.bytes, bytes.data(), bytes.size());
  state.bytes += bytes.size();
}

bool ColoSecondary::commit() noexcept {
  // Against fail_over(): one of them is first.
  Stage expected = Stage::waiting;
  return stage_.compare_exchange_strong(expected, Stage::loading, std::memory_order_acq_rel);
}

bool ColoSecondary::load_some() noexcept {
  if (!cache_.flush_to_ram()) return false;
  finished_ = 1 - finished_;
  checkpoints.add();
  stage_.store(Stage::waiting, std::memory_order_release);  // pairs with fail_over()
  return true;
}

// ---- Failover

bool ColoSecondary::fail_over() noexcept {
  Stage expected = Stage::waiting;
  return stage_.compare_exchange_strong(expected, Stage::failed_over, std::memory_order_acq_rel);
}

bool ColoSecondary::lose_source(const StreamError& error) noexcept {
  const Stage now = stage();
  if (now == Stage::off || now == Stage::migrating) return false;
  uint32_t expected = 0;
  if (!lost_.compare_exchange_strong(expected, 1, std::memory_order_relaxed)) return true;
  loss_ = error;
  lost_.store(2, std::memory_order_release);  // pairs with source_lost()
  return true;
}

bool ColoSecondary::replay() noexcept {
  if (!end_replayed_) {
    if (!next().writable()) return false;
    next().on_ram_section_begin(SectionType::end, ram_section_);
    next().on_ram_section_end(SectionType::end, ram_section_, end_has_footer_);
    next().on_ram_complete();
    end_replayed_ = true;
  }
  const DeviceState& state = states_[finished_];
  const Bytes description = checkpoints.read() > 0 ? Bytes{kEmptyDescription} : Bytes{};
  while (replayed_ < state.bytes + description.size()) {
    const Bytes rest = replayed_ < state.bytes ? Bytes{state.memory->data(), state.bytes}.subspan(replayed_)
                                               : description.subspan(replayed_ - state.bytes);
    const std::size_t taken = next().on_tail(rest);
    if (taken == 0) return false;
    replayed_ += taken;
  }
  return true;
}

}  // namespace migrx

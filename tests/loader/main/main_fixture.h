// A main channel with everything around it: guarded memory for its blocks, events that are recorded, multifd
// channels that arrive when a test says so, helpers that are pumped by hand.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "loader/main/main_channel.h"
#include "tests/loader/guarded_memory.h"
#include "tests/loader/main_stream_builder.h"

namespace migrx::test {

class RecordingEvents : public MainEvents {
 public:
  explicit RecordingEvents(RamBlockList& blocks) : blocks_(blocks) {}

  bool writable() noexcept override {
    ++asked;
    return room && (refuse_every == 0 || asked % refuse_every != 0);
  }
  StreamError on_header(uint32_t version) override {
    log.push_back("header " + std::to_string(version));
    return {};
  }
  StreamError on_configuration(const Configuration& c) override {
    configuration = c;
    log.push_back("configuration " + c.machine);
    return {};
  }
  StreamError on_command(MigCommand command, Bytes payload) override {
    std::string line = std::string("command ") + to_string(command);
    if (payload.size() == 4) line += " " + std::to_string(load_be32(payload.data()));
    log.push_back(line);
    return refuse_command == command ? make_error(ErrorClass::unsupported, 0, "", "not today")
                                     : StreamError{};
  }
  StreamError on_ram_start(const SectionHeader& section, std::span<const BlockEntry> entries) override {
    log.push_back("ram start " + std::to_string(section.section_id));
    for (const BlockEntry& entry : entries) {
      listed.push_back(entry);
      log.push_back("  " + entry.idstr + " " + std::to_string(entry.used_length));
      if (skip_blocks) continue;
      if (entry.used_length > block_bytes_max)
        return make_error(ErrorClass::mismatch, 0, "", "block '%s' is too long", entry.idstr.c_str());
      memory[entry.idstr] = std::make_unique<GuardedMemory>(entry.used_length);
      if (stale) std::memset(memory[entry.idstr]->data(), 0xee, entry.used_length);
      blocks_.add(std::make_unique<RamBlock>(entry.idstr, memory[entry.idstr]->data(), entry.used_length,
                                             false, !stale, block_node));
    }
    return {};
  }
  void on_ram_section_begin(SectionType type, uint32_t id) noexcept override {
    log.push_back((type == SectionType::part ? "ram part " : "ram end ") + std::to_string(id));
  }
  void on_ram_section_end(SectionType, uint32_t id, bool has_footer) noexcept override {
    log.push_back("ram section end " + std::to_string(id) + (has_footer ? " footer" : ""));
  }
  void on_epoch_closed(Epoch epoch) noexcept override {
    log.push_back("epoch " + std::to_string(epoch.number()));
    if (at_epoch) at_epoch(epoch.number());
  }
  StreamError on_postcopy() override {
    log.push_back("postcopy");
    return refuse_postcopy ? make_error(ErrorClass::io, 0, "", "not today") : StreamError{};
  }
  StreamError on_postcopy_discard(std::string_view idstr, uint64_t first, uint64_t pages) override {
    log.push_back("discard " + std::string(idstr) + " " + std::to_string(first) + "+" +
                  std::to_string(pages));
    return {};
  }
  StreamError on_postcopy_package(uint32_t bytes) override {
    log.push_back("package " + std::to_string(bytes) + " behind " + std::to_string(tail.size()));
    return {};
  }
  void on_ram_complete() noexcept override { log.push_back("ram complete"); }
  void on_other_section_begin(const SectionHeader& s) noexcept override {
    log.push_back("other " + std::to_string(static_cast<int>(s.type)) + " " + std::string(s.idstr));
  }
  std::size_t on_verbatim(Bytes bytes) noexcept override {
    // Small pieces are covered by the promise of writable(); long ones are taken bit by bit.
    const std::size_t n = bytes.size() > step_max && bytes.size() > 300 ? step_max : bytes.size();
    verbatim.insert(verbatim.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    return n;
  }
  void on_other_section_end(const SectionHeader& s) noexcept override {
    log.push_back("other end " + std::string(s.idstr));
  }
  std::size_t on_tail(Bytes bytes) noexcept override {
    if (!room) return 0;
    const std::size_t n = std::min(bytes.size(), step_max);
    tail.insert(tail.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    return n;
  }

  bool room = true;
  uint64_t refuse_every = 0;  // every so many-th question is answered with no
  uint64_t asked = 0;
  std::size_t step_max = SIZE_MAX;
  uint64_t block_bytes_max = 1 << 20;  // a longer one is refused, as a session would
  bool skip_blocks = false;            // make none
  bool stale = false;                  // memory that held other bytes before
  NodeId block_node = kAnyNode;
  std::optional<MigCommand> refuse_command;
  bool refuse_postcopy = false;
  std::function<void(uint64_t)> at_epoch;
  std::vector<std::string> log;
  std::vector<BlockEntry> listed;
  std::vector<std::byte> verbatim;
  std::vector<std::byte> tail;
  std::optional<Configuration> configuration;
  std::map<std::string, std::unique_ptr<GuardedMemory>> memory;

 private:
  RamBlockList& blocks_;
};

class MainRig {
 public:
  explicit MainRig(MainSettings s = {}, uint32_t helpers = 0, const NodeRouter* router = nullptr)
      : settings(std::move(s)),
        events(blocks),
        barrier(settings.multifd_channels),
        compress(helpers, 4, kernels()),
        channel(settings, events, blocks, barrier, compress, kernels(), router) {}

  static const PageKernels& kernels() {
    std::string error;
    const PageKernels* const k = select_page_kernels(error);
    if (k == nullptr) std::abort();
    return *k;
  }

  // Feeds all of `stream` in pieces of at most `step` bytes, pumping helpers and asking again while parked.
  // Returns the last status; parked only if nothing moved for a while.
  ParseStatus feed(Bytes stream, std::size_t step = SIZE_MAX) {
    ParseStatus status = ParseStatus::need_more;
    std::size_t at = 0;
    while (at < stream.size()) {
      const std::size_t n = std::min(step, stream.size() - at);
      Bytes piece = stream.subspan(at, n);
      int idle = 0;
      for (;;) {
        // A copy that ends where the piece ends: reading beyond it is seen by a sanitizer.
        const std::vector<std::byte> exact(piece.begin(), piece.end());
        const ParseResult result = channel.parse(copy_pieces ? Bytes(exact) : piece);
        status = result.status;
        if (status == ParseStatus::failed) return status;
        if (result.consumed > piece.size()) std::abort();
        piece = piece.subspan(result.consumed);
        if (status == ParseStatus::need_more) {
          EXPECT_TRUE(piece.empty());
          break;
        }
        if (result.consumed > 0) idle = 0;
        if (++idle > 50) {
          fed += at + n - piece.size();
          return ParseStatus::parked;
        }
        for (uint32_t i = 0; i < compress.helpers(); ++i) compress.helper(i).do_work();
        if (reach_positions) channel.file_position_reached();
        for (int spin = 0; spin < 10 && !channel.ready(); ++spin) {
        }
      }
      at += n;
    }
    fed += at;
    return status;
  }

  [[nodiscard]] std::vector<std::byte> page_at(const std::string& block, uint64_t offset) {
    const std::byte* const p = events.memory.at(block)->data() + offset;
    return {p, p + kPageBytes};
  }

  MainSettings settings;
  RamBlockList blocks;
  RecordingEvents events;
  FlushBarrier barrier;
  CompressJobs compress;
  MainChannel channel;
  bool reach_positions = false;
  bool copy_pieces = true;
  uint64_t fed = 0;
};

}  // namespace migrx::test

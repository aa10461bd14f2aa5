// What the source is going to send: sections, pages, markers.
#include <algorithm>
#include <cstring>

#include "tests/sim/source.h"

namespace migrx::sim {
namespace {

constexpr std::size_t kPage = 4096;

bool is_zero(std::span<const std::byte> page) {
  return std::all_of(page.begin(), page.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

const char* to_string(Age age) {
  constexpr const char* kNames[] = {"7.2", "8.0", "8.2", "9.0", "9.1", "10.0"};
  return kNames[static_cast<std::size_t>(age)];
}

Source::Source(const SourceOptions& options, Random random) : options_(options), random_(random) {
  blocks_.push_back({"mem", std::vector<std::byte>(options.pages * kPage)});
  if (options.small_pages > 0)
    blocks_.push_back({"0000:00:02.0/vga.vram", std::vector<std::byte>(options.small_pages * kPage)});
  blocks_.push_back({"pc.rom", std::vector<std::byte>(kPage)});
  for (const SourceBlock& block : blocks_) {
    last_sent_.emplace_back(block.image.size());
    dirty_.emplace_back(block.pages(), true);
    sent_once_.emplace_back(block.pages(), false);
  }
  plan();
}

void Source::new_content(std::byte* page) {
  if (options_.compressible && random_.chance(0.8)) {
    // Text-like: short words that repeat.
    std::byte words[8][16];
    for (auto& word : words)
      for (std::byte& b : word) b = static_cast<std::byte>('a' + random_.below(26));
    for (std::size_t at = 0; at < kPage; at += 16) std::memcpy(page + at, words[random_.below(8)], 16);
    return;
  }
  for (std::size_t at = 0; at < kPage; at += 8) {
    const uint64_t word = random_.next();
    std::memcpy(page + at, &word, 8);
  }
}

// What the guest does between two sections; only then does the source look at the dirty log.
void Source::dirty_some(double share) {
  for (const auto& [block, page] : dirty_again_) dirty_[block][page] = true;
  dirty_again_.clear();
  for (uint32_t block = 0; block < blocks_.size(); ++block) {
    for (uint32_t page = 0; page < blocks_[block].pages(); ++page) {
      if (!random_.chance(share)) continue;
      const std::span<std::byte> bytes = page_of(block, page);
      if (random_.chance(options_.zero)) {
        std::memset(bytes.data(), 0, kPage);
      } else if (random_.chance(0.4)) {
        for (uint64_t i = random_.between(1, 20); i > 0; --i)
          bytes[random_.below(kPage)] = static_cast<std::byte>(random_.next());
      } else {
        new_content(bytes.data());
      }
      dirty_[block][page] = true;
    }
  }
}

void Source::plan() {
  dirty_some(1.0);
  if (random_.chance(0.5)) main_.ram_id = static_cast<uint32_t>(random_.between(0, 40));
  main_.header().configuration(options_.age == Age::v7_2 ? "pc-i440fx-7.2" : "pc-q35-10.0");
  if (options_.return_path) main_.open_return_path().ping(1);
  flush_main();
  std::vector<test::MainStreamBuilder::Block> list;
  for (const SourceBlock& block : blocks_) list.push_back({block.idstr, block.image.size(), {}});
  main_.ram_start(list);
  plan_sync();
  if ((multifd() && round_mode()) || options_.flush_without_multifd) main_.multifd_flush();
  if (multifd() && round_mode()) plan_marker_epoch();
  main_.ram_close();
  if (!multifd() || !round_mode()) plan_marker_epoch();
  flush_main();
  for (uint32_t part = 0; part < options_.parts; ++part) {
    main_.ram_part();
    plan_part(static_cast<uint32_t>(random_.between(0, options_.pages_per_part)), false);
    dirty_some(options_.dirty * static_cast<double>(random_.below(100)) / 50);
  }
  if (options_.age == Age::v10_0) main_.switchover_start();
  main_.ram_end();
  plan_part(UINT32_MAX, true);
  // Device state behind it.
  main_.device_tail(options_.tail_bytes);
  flush_main();
}

void Source::plan_part(uint32_t pages_max, bool last) {
  uint32_t sent = 0;
  bool wrapped = false;
  while (sent < pages_max) {
    while (cursor_block_ < blocks_.size() &&
           (cursor_page_ >= blocks_[cursor_block_].pages() || !dirty_[cursor_block_][cursor_page_])) {
      if (++cursor_page_ >= blocks_[cursor_block_].pages()) {
        cursor_page_ = 0;
        ++cursor_block_;
      }
    }
    if (cursor_block_ < blocks_.size()) {
      plan_page(cursor_block_, cursor_page_, last);
      ++cursor_page_;
      ++sent;
      continue;
    }
    // The scan wraps: a round is over.
    cursor_block_ = cursor_page_ = 0;
    if (multifd() && round_mode()) plan_empty_round();
    if (wrapped) break;  // nothing is dirty
    wrapped = true;
  }
  if (options_.empty_rounds && multifd() && round_mode() && random_.chance(0.3)) plan_empty_round();
  if (multifd() && round_mode() && last) {
    if (options_.age <= Age::v9_0) plan_empty_round();
    if (options_.age == Age::v9_1) plan_sync();  // its FLUSH was forgotten in 9.1 and 9.2
  }
  if (!round_mode()) plan_sync();
  main_.ram_close();
  if (!multifd() || !round_mode()) plan_marker_epoch();
  flush_main();
}

// SYNC on every channel, MULTIFD_FLUSH on main.
void Source::plan_empty_round() {
  plan_sync();
  main_.multifd_flush();
  plan_marker_epoch();
  flush_main();  // QEMU too: nothing of the next epoch is sent before
}

void Source::plan_page(uint32_t block, uint32_t page, bool last) {
  const std::span<std::byte> content = page_of(block, page);
  const std::string& idstr = blocks_[block].idstr;
  const uint64_t offset = uint64_t{page} * kPage;
  const std::span<std::byte> before = std::span{last_sent_[block]}.subspan(offset, kPage);
  const bool zero = is_zero(content);
  dirty_[block][page] = false;
  ++pages_sent_;
  epoch_.push_back({block, page, {content.begin(), content.end()}, {}});

  if (zero && (!multifd() || options_.zero_pages == ZeroPages::on_main)) {
    main_.zero(idstr, offset);
  } else if (multifd()) {
    if (!packet_.idstr.empty() && packet_.idstr != idstr) flush_packet(Op::Kind::packet);
    packet_.idstr = idstr;
    if (zero && options_.zero_pages == ZeroPages::in_packets) {
      packet_.zero.push_back(offset);
    } else {
      packet_.normal.push_back(offset);
      packet_.bytes.insert(packet_.bytes.end(), content.begin(), content.end());
    }
    if (packet_.normal.size() + packet_.zero.size() >= options_.packet_pages) {
      flush_packet(Op::Kind::packet);
      if (options_.send_twice && !zero && !last && random_.chance(0.5)) {
        // The guest writes the page meanwhile; it is dirty again, so a later epoch repairs it.
        new_content(content.data());
        packet_.idstr = idstr;
        packet_.normal.push_back(offset);
        packet_.bytes.insert(packet_.bytes.end(), content.begin(), content.end());
        epoch_.back().or_this.assign(content.begin(), content.end());
        dirty_again_.emplace_back(block, page);
      }
    }
  } else if (options_.xbzrle && sent_once_[block][page] && random_.chance(0.9)) {
    const std::vector<std::byte> patch = test::encode_xbzrle(before, content);
    if (patch.size() <= kPage)
      main_.xbzrle(idstr, offset, patch);
    else
      main_.page(idstr, offset, content);
  } else if (options_.compress && sent_once_[block][page] && random_.chance(0.7)) {
    main_.compressed(idstr, offset, content);
  } else {
    main_.page(idstr, offset, content);
  }
  sent_once_[block][page] = true;
  std::memcpy(before.data(), content.data(), kPage);
}

void Source::plan_sync() {
  if (!multifd()) return;
  flush_main();
  // A packet that is not full yet: up to 8.2 it may travel with the SYNC.
  if (!packet_.idstr.empty() && !(options_.merge_sync && options_.age <= Age::v8_2))
    flush_packet(Op::Kind::packet);
  flush_packet(Op::Kind::sync);
}

void Source::plan_marker_epoch() {
  epochs_.push_back(std::move(epoch_));
  epoch_.clear();
}

void Source::flush_packet(Op::Kind kind) {
  packet_.kind = kind;
  ops_.push_back(std::move(packet_));
  packet_ = Op{};
}

void Source::flush_main() {
  if (main_.size() == 0) return;
  Op op;
  op.bytes = main_.take();
  ops_.push_back(std::move(op));
}

}  // namespace migrx::sim

#include "loader/destination/stream_rewriter.h"

#include <algorithm>
#include <array>
#include <utility>

namespace migrx {
namespace {

// Record flags, QEMU migration/ram.c.
constexpr uint64_t kZero = 0x02;
constexpr uint64_t kMemSize = 0x04;
constexpr uint64_t kPage = 0x08;
constexpr uint64_t kEos = 0x10;
constexpr uint64_t kContinue = 0x20;

constexpr const char* kCapabilities = "configuration/capabilities";
constexpr const char* kIgnoreShared = "x-ignore-shared";

// Blocks up to this long are sent as zero beforehand; a longer one would hold RAM up instead of helping it.
constexpr uint64_t kZeroAheadPagesMax = (uint64_t{64} << 20) / kPageBytes;
// One page in as many is written at the destination beforehand: QEMU asks for transparent hugepages, of 2
// MiB, and the first write to one clears all of it. In the first 16 MiB of a block, where its content is.
constexpr uint64_t kTouchPages = (uint64_t{2} << 20) / kPageBytes;
constexpr uint64_t kTouchPagesMax = (uint64_t{16} << 20) / kPageBytes;
constexpr std::array<std::byte, kPageBytes> kNotZero{std::byte{1}};

// Appends QEMU's encodings to a vector: cold parts only.
class Writer {
 public:
  explicit Writer(std::vector<std::byte>& out) : out_(out) {}
  Writer& u8(uint8_t v) {
    out_.push_back(static_cast<std::byte>(v));
    return *this;
  }
  Writer& be16(uint16_t v) { return u8(static_cast<uint8_t>(v >> 8)).u8(static_cast<uint8_t>(v)); }
  Writer& be32(uint32_t v) { return be16(static_cast<uint16_t>(v >> 16)).be16(static_cast<uint16_t>(v)); }
  Writer& be64(uint64_t v) { return be32(static_cast<uint32_t>(v >> 32)).be32(static_cast<uint32_t>(v)); }
  Writer& text(std::string_view s) {
    for (const char c : s) u8(static_cast<uint8_t>(c));
    return *this;
  }
  Writer& str8(std::string_view s) { return u8(static_cast<uint8_t>(s.size())).text(s); }
  Writer& raw(Bytes b) {
    out_.insert(out_.end(), b.begin(), b.end());
    return *this;
  }
  Writer& command(MigCommand command, Bytes payload) {
    return u8(static_cast<uint8_t>(SectionType::command))
        .be16(static_cast<uint16_t>(command))
        .be16(static_cast<uint16_t>(payload.size()))
        .raw(payload);
  }

 private:
  std::vector<std::byte>& out_;
};

bool zero_ahead(const RamBlock& block) noexcept {
  return block.fresh() && block.pages() <= kZeroAheadPagesMax;
}

bool all_zero(const std::byte* page) noexcept {
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPageBytes - 1) == 0;
}

}  // namespace

StreamRewriter::StreamRewriter(const RamBlockList& blocks, HandoffForm form,
                               std::map<std::string, uint64_t> addresses,
                               std::map<std::string, uint64_t> page_bytes, ByteFifo& out)
    : blocks_(blocks),
      form_(form),
      addresses_(std::move(addresses)),
      out_(out),
      page_bytes_(std::move(page_bytes)) {}

uint64_t StreamRewriter::page_bytes_of(const std::string& idstr) const {
  const auto found = page_bytes_.find(idstr);
  return found == page_bytes_.end() ? kPageBytes : found->second;
}

void StreamRewriter::emit(const std::vector<std::byte>& bytes) noexcept {
  [[maybe_unused]] const std::size_t written = out_.write(bytes);  // writable() promised the room
}

bool StreamRewriter::writable() noexcept {
  if (asked_ && !proved_.load(std::memory_order_acquire)) return false;  // pairs with destination_proved()
  // pairs with memory_ready()
  if (wants_memory() && !memory_ready_.load(std::memory_order_acquire)) return false;
  return pump() && out_.room() >= kMainEventBytesMax;
}

StreamError StreamRewriter::on_header(uint32_t version) {
  std::vector<std::byte> bytes;
  Writer(bytes).be32(0x5145564d).be32(version);
  emit(bytes);
  return {};
}

StreamError StreamRewriter::on_configuration(const Configuration& configuration) {
  if (!configuration.present)
    return make_error(
        ErrorClass::unsupported, 8, "configuration",
        "the source sends no configuration section (machine types up to 2.3), so a destination cannot be "
        "told that its RAM is in place: use --no-handoff or a newer machine type");
  std::vector<std::byte> bytes;
  Writer writer(bytes);
  writer.u8(static_cast<uint8_t>(SectionType::configuration))
      .be32(static_cast<uint32_t>(configuration.machine.size()))
      .text(configuration.machine);
  for (const ConfigurationSubsection& subsection : configuration.subsections)
    if (subsection.name != kCapabilities) writer.raw(subsection.raw);
  // Capabilities that QEMU validates; mapped-ram belongs to the file this may come from, not to
  // what goes out.
  std::vector<std::string> names;
  for (const std::string& name : configuration.capabilities)
    if (name != "mapped-ram" && name != kIgnoreShared) names.push_back(name);
  if (form_ == HandoffForm::x_ignore_shared) names.emplace_back(kIgnoreShared);
  if (!names.empty() || configuration.has_capabilities) {
    writer.u8(static_cast<uint8_t>(SectionType::subsection)).str8(kCapabilities).be32(1);
    writer.be32(static_cast<uint32_t>(names.size()));
    for (const std::string& name : names) writer.str8(name);
  }
  // The destination's own SHUT is the verdict, and the end of the device state, whatever the source does.
  std::array<std::byte, 4> value{};
  store_be32(value.data(), kProofPing);
  writer.command(MigCommand::open_return_path, {}).command(MigCommand::ping, value);
  emit(bytes);
  asked_ = true;
  return {};
}

StreamError StreamRewriter::on_command(MigCommand command, Bytes payload) {
  // The return path has been opened above, and SWITCHOVER_START is unknown to QEMU before 10.0 and
  // needed by none.
  if (command == MigCommand::open_return_path || command == MigCommand::ping ||
      command == MigCommand::switchover_start)
    return {};
  std::vector<std::byte> bytes;
  Writer writer(bytes);
  writer.command(command, payload);
  if (command == MigCommand::postcopy_advise && !payload.empty()) {
    if (StreamError error = check_page_sizes(load_be64(payload.data()))) return error;
    std::array<std::byte, 4> value{};
    store_be32(value.data(), kAdvisePing);
    writer.command(MigCommand::ping, value);
    advised_.store(true, std::memory_order_release);       // before the PING can be answered
    wants_memory_.store(true, std::memory_order_release);  // whoever sees it sees advised_
  }
  emit(bytes);
  return {};
}

// The destination would end at ADVISE (QEMU migration/savevm.c, loadvm_postcopy_handle_advise), and say so in
// its own log alone.
StreamError StreamRewriter::check_page_sizes(uint64_t announced) const {
  uint64_t here = kPageBytes;  // of the blocks that are not in files
  for (const auto& [idstr, bytes] : page_bytes_) here |= bytes;
  if (announced == here) return {};
  return make_error(
      ErrorClass::mismatch, 0, "POSTCOPY_ADVISE: page sizes",
      "the source's RAM lies in pages of 0x%llx bytes (sizes OR-ed), the destination's in 0x%llx: "
      "postcopy needs the same at both ends; give both ends the same kind of memory, or turn the "
      "capability postcopy-ram off at both",
      static_cast<unsigned long long>(announced), static_cast<unsigned long long>(here));
}

StreamError StreamRewriter::on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) {
  ram_section_ = section.section_id;
  if (no_memory_) wants_memory_.store(true, std::memory_order_release);
  Writer writer(start_);
  writer.u8(static_cast<uint8_t>(SectionType::start))
      .be32(section.section_id)
      .str8(section.idstr)
      .be32(section.instance_id)
      .be32(section.version_id);
  uint64_t total = 0;
  for (const BlockEntry& entry : blocks) total += entry.used_length;
  writer.be64(total | kMemSize);
  // File-backed blocks stand first in our list, in the order of --ram.
  std::map<std::string, uint64_t> addresses;
  uint64_t sum = 0;
  uint64_t private_pages = 0;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (!blocks_[i].file_backed()) {
      first_page_.push_back(private_pages);
      private_pages += blocks_[i].pages();
      // The destination's own block need not be zero (firmware), so it must hear of zero pages, too:
      // beforehand, or as they come.
      RamBlock& block = blocks_[i];
      taken_.push_back(&block.split_written());
      block.set_target({block.host(), &block.written(), zero_ahead(block), taken_.back()});
      continue;
    }
    first_page_.push_back(0);
    taken_.push_back(nullptr);
    addresses[blocks_[i].idstr()] = sum;
    sum += blocks_[i].used_length();
  }
  for (const auto& [idstr, address] : addresses_) addresses[idstr] = address;
  if (advised()) discarded_.prepare(blocks_);
  for (const BlockEntry& entry : blocks) {
    if (advised() && entry.page_bytes.value_or(kPageBytes) != page_bytes_of(entry.idstr))
      return make_error(
          ErrorClass::mismatch, 0, "RAM block list: page size",
          "block '%s' lies in pages of %llu bytes at the source, %llu at the destination: postcopy "
          "needs the same at both ends",
          entry.idstr.c_str(), static_cast<unsigned long long>(entry.page_bytes.value_or(kPageBytes)),
          static_cast<unsigned long long>(page_bytes_of(entry.idstr)));
    writer.str8(entry.idstr).be64(entry.used_length);
    if (entry.page_bytes) writer.be64(*entry.page_bytes);
    if (form_ == HandoffForm::x_ignore_shared) writer.be64(addresses[entry.idstr]);
  }
  writer.be64(kEos);
  // A PART that is on its way, and END after it.
  pages_.reserve(2 * private_pages + blocks_.size() * (kTouchPagesMax / kTouchPages));
  known_zero_.assign(private_pages, false);
  return {};
}

void StreamRewriter::on_ram_section_end(SectionType type, uint32_t section_id, bool has_footer) noexcept {
  if (type != SectionType::start) return;
  footers_ = has_footer;
  if (has_footer) Writer(start_).u8(static_cast<uint8_t>(SectionType::footer)).be32(section_id);
  emit(start_);
  sections_.fetch_add(1, std::memory_order_release);
  start_.clear();
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (blocks_[i].file_backed() || !zero_ahead(blocks_[i])) continue;
    for (uint64_t page = 0; page < blocks_[i].pages(); ++page) {
      const bool in_hugepages = page / kTouchPages < blocks_[i].pages() / kTouchPages;
      if (in_hugepages && page % kTouchPages == 0 && page < kTouchPagesMax)
        pages_.push_back({&blocks_[i], page, first_page_[i] + page, PageKind::touched});
      pages_.push_back({&blocks_[i], page, first_page_[i] + page, PageKind::fresh});
    }
  }
  pending_ = !pages_.empty();
  (void)pump();  // as far as there is room; the rest when more of the stream comes
}

void StreamRewriter::add_page(std::size_t block, uint64_t page) noexcept {
  pages_.push_back({&blocks_[block], page, first_page_[block] + page, PageKind::loaded});
}

void StreamRewriter::take_pages() noexcept {
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    if (taken_[i] != nullptr)
      blocks_[i].written().take_into(*taken_[i], [&](uint64_t page) { add_page(i, page); });
}

void StreamRewriter::on_epoch_closed(Epoch /*epoch*/) noexcept {
  // START still waits for its footer, or the section before is still on its way: what has
  // changed stays marked.
  if (pending_ || !start_.empty()) return;
  take_pages();
  pending_ = !pages_.empty();
}

void StreamRewriter::on_ram_complete() noexcept {
  take_pages();  // after those of a PART that may be on its way
  pending_ = true;
  final_ = true;
}

// The destination's RAM is its own from here on: nothing of a block in a file may be touched any more, not
// even by reading, since that would make a page of zeros where one was dropped.
StreamError StreamRewriter::on_postcopy() {
  take_pages();  // after those of a PART that may be on its way
  pending_ = pending_ || !pages_.empty();
  in_postcopy_.store(true, std::memory_order_release);
  return {};
}

StreamError StreamRewriter::on_postcopy_discard(std::string_view idstr, uint64_t first, uint64_t pages) {
  discarded_.add(idstr, first, pages);
  return {};
}

StreamError StreamRewriter::on_postcopy_package(uint32_t /*bytes*/) {
  packaged_.store(true, std::memory_order_release);
  return {};
}

bool StreamRewriter::pump() noexcept {
  std::array<std::byte, 13> word;
  while (pending_) {
    if (!open_) {
      if (out_.room() < word.size()) return false;
      word[0] = static_cast<std::byte>(final_ ? SectionType::end : SectionType::part);
      store_be32(&word[1], ram_section_);
      (void)out_.write({word.data(), 5});
      open_ = true;
      end_open_ = final_;
      last_block_ = nullptr;
    }
    for (; next_page_ < pages_.size(); ++next_page_)
      if (!emit_page(pages_[next_page_])) return false;
    if (out_.room() < word.size()) return false;
    store_be64(word.data(), kEos);
    word[8] = static_cast<std::byte>(SectionType::footer);
    store_be32(&word[9], ram_section_);
    (void)out_.write({word.data(), footers_ ? 13U : 8U});
    sections_.fetch_add(1, std::memory_order_release);
    open_ = false;
    pending_ =
        final_ && !end_open_;  // RAM was completed while a PART was on its way: END follows, without pages
    pages_.clear();
    next_page_ = 0;
  }
  return true;
}

bool StreamRewriter::emit_page(const Page& page) noexcept {
  const std::string& idstr = page.block->idstr();
  if (out_.room() < 8 + 1 + kIdstrMax + kPageBytes) return false;
  const std::byte* const content =
      page.kind == PageKind::touched ? kNotZero.data() : page.block->host() + page.index * kPageBytes;
  const bool zero = page.kind == PageKind::fresh || (page.kind == PageKind::loaded && all_zero(content));
  if (zero && known_zero_[page.number]) return true;
  known_zero_[page.number] = zero;
  const bool same_block = page.block == last_block_;
  last_block_ = page.block;
  std::array<std::byte, 9> word;
  store_be64(word.data(), page.index * kPageBytes | (zero ? kZero : kPage) | (same_block ? kContinue : 0));
  word[8] = static_cast<std::byte>(idstr.size());
  (void)out_.write({word.data(), same_block ? 8U : 9U});
  if (!same_block) (void)out_.write({reinterpret_cast<const std::byte*>(idstr.data()), idstr.size()});
  constexpr std::array kNull{std::byte{0}};
  (void)out_.write(zero ? Bytes{kNull} : Bytes{content, kPageBytes});
  return true;
}

std::size_t StreamRewriter::on_tail(Bytes bytes) noexcept {
  if (!pump()) return 0;
  const std::size_t taken = out_.write(bytes);
  if (taken > 0) device_state_begun_.store(true, std::memory_order_release);
  return taken;
}

}  // namespace migrx

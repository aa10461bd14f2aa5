#include "loader/main/main_channel.h"

#include <algorithm>

namespace migrx {
namespace {

constexpr uint32_t kMagic = 0x5145564d;  // "QEVM"
constexpr uint32_t kVersion = 3;
constexpr uint32_t kRamVersion = 4;

// The longest field that is taken as one piece: a compressed page.
constexpr std::size_t kCarryMax = kCompressedPageBytesMax;

constexpr uint8_t type_byte(SectionType type) {
  return static_cast<uint8_t>(type);
}

constexpr const char* kHeaderField = "header";
constexpr const char* kSectionField = "section";

}  // namespace

MainChannel::MainChannel(const MainSettings& settings, MainEvents& events, RamBlockList& blocks,
                         FlushBarrier& barrier, CompressJobs& compress, const PageKernels& kernels,
                         const NodeRouter* router, ColoEvents* colo)
    : settings_(settings),
      events_(events),
      barrier_(barrier),
      in_(kCarryMax),
      configuration_(settings),
      command_(settings),
      ram_(settings, blocks, kernels, compress, router),
      other_(events),
      colo_(colo),
      checkpoint_(colo),
      mode_(settings.multifd_flush_after_each_section) {
  sections_.reserve(kSectionsMax);
}

ParseResult MainChannel::parse(Bytes piece) noexcept {
  if (state_ == State::failed) return {0, ParseStatus::failed};
  in_.feed(piece);
  ram_.piece_begins(offset());
  wait_ = Wait::none;
  const ParseStatus status = run();
  publish();
  return {piece.size() - in_.available(), status};
}

ParseStatus MainChannel::run() noexcept {
  for (;;) {
    Outcome outcome;
    switch (state_) {
      case State::header:
      case State::header_event:
      case State::first_type:
        outcome = run_header();
        break;
      case State::configuration:
      case State::configuration_event:
        outcome = run_configuration();
        break;
      case State::next_item:
      case State::item:
      case State::command:
      case State::part_id:
        outcome = run_item();
        break;
      case State::section_id:
      case State::section_name:
      case State::section_begin:
        outcome = run_section_header();
        break;
      case State::ram_body:
      case State::ram_listed:
      case State::ram_ready:
      case State::ram_eos:
      case State::ram_settle:
        outcome = run_ram();
        break;
      case State::marker:
        outcome = run_marker();
        break;
      case State::section_footer:
      case State::footer_unknown:
      case State::footer_rest:
      case State::section_end:
      case State::other_body:
        outcome = run_section_tail();
        break;
      case State::tail_first:
      case State::tail:
        outcome = run_tail();
        break;
      case State::colo_copy:
      case State::colo_begin:
      case State::colo_message:
        outcome = run_colo();
        break;
      case State::failed:
        return ParseStatus::failed;
    }
    if (outcome.has_value()) return *outcome;
  }
}

bool MainChannel::ready() noexcept {
  switch (wait_) {
    case Wait::none:
      return true;
    case Wait::lane:
      return ram_.lane_has_room();
    case Wait::events:
      return events_.writable();
    case Wait::barrier:
      return barrier_.all_arrived(epoch_);
    case Wait::settle: {
      StreamError ignored;  // met again, and reported, when the channel goes on
      return ram_.settled(ignored);
    }
    case Wait::file_position:
      return !file_position_wanted().has_value();
    case Wait::colo:
      return state_ != State::colo_message || checkpoint_.ready();
  }
  return true;
}

StreamError MainChannel::end_of_stream() noexcept {
  if (state_ == State::failed) return error_;
  // Whether all of the device state came only a destination QEMU can tell.
  if (state_ == State::tail && !colo_enabled()) return {};
  const char* where = "between sections";
  if (in_.carried() > 0 || ram_.mid_record()) where = "inside a record";
  if (state_ == State::header || state_ == State::header_event) where = kHeaderField;
  if (state_ == State::configuration) where = "inside the configuration section";
  if (state_ == State::ram_body) where = ram_.mid_record() ? "inside a RAM record" : "inside a RAM section";
  if (state_ == State::other_body) where = "inside a section";
  if (ram_ended_) where = colo_enabled() ? "before the end of the device state" : "before the device state";
  if (state_ == State::colo_message || in_checkpoint_) where = checkpoint_.where();
  StreamError error;
  error.error_class = ErrorClass::truncated;
  error.channel.index = ChannelName::kMain;
  error.offset = offset();
  error.field = where;
  error_ = error;
  state_ = State::failed;
  return error;
}

ParseStatus MainChannel::fail(const StreamError& error) noexcept {
  error_ = error;
  error_.channel.index = ChannelName::kMain;
  state_ = State::failed;
  return ParseStatus::failed;
}

bool MainChannel::refused(StreamError error, const char* field) noexcept {
  if (!error) return false;
  if (error.offset == 0) error.offset = item_at_;
  if (error.field == nullptr || error.field[0] == '\0') error.field = field;
  fail(error);
  return true;
}

void MainChannel::publish() noexcept {
  const RamTally& tally = ram_.tally();
  counters_.normal_pages.set(tally.normal_pages);
  counters_.zero_pages.set(tally.zero_pages);
  counters_.zero_pages_untouched.set(tally.zero_pages_untouched);
  counters_.xbzrle_pages.set(tally.xbzrle_pages);
  counters_.xbzrle_bytes.set(tally.xbzrle_bytes);
  counters_.compressed_pages.set(tally.compressed_pages);
  counters_.compressed_bytes.set(tally.compressed_bytes);
  // A delta writes no more than came; compressed pages come without multifd, so that nobody waits for them.
  expanded_bytes_ = (tally.zero_pages - tally.zero_pages_untouched) * kPageBytes;
  counters_.ram_sections.set(ram_sections_);
  counters_.markers.set(epoch_);
  counters_.per_round.set(mode_ == FlushMode::round ? 1 : 0);
  counters_.begun_anew.set(ram_.begun_anew());
}

// ---- Header and configuration
// ------------------------------------------------------------------------------------

MainChannel::Outcome MainChannel::run_header() {
  const std::byte* p = nullptr;
  if (state_ == State::header) {
    if ((p = in_.take(8)) == nullptr) return ParseStatus::need_more;
    if (load_be32(p) != kMagic)
      return fail(make_error(ErrorClass::bad_stream, 0, kHeaderField, "magic 0x%08x: not a migration stream",
                             load_be32(p)));
    if (const uint32_t version = load_be32(p + 4); version != kVersion)
      return fail(
          make_error_values(ErrorClass::unsupported, 4, "header: version", version, kVersion,
                            version == 2 ? "the format of QEMU before 0.9.1" : "unknown stream format"));
    state_ = State::header_event;
  }
  if (state_ == State::header_event) {
    if (!events_.writable()) return park(Wait::events);
    if (refused(events_.on_header(kVersion), kHeaderField)) return ParseStatus::failed;
    state_ = State::first_type;
  }
  if ((p = in_.take(1)) == nullptr) return ParseStatus::need_more;
  type_ = std::to_integer<uint8_t>(*p);
  item_at_ = in_.offset() - 1;
  // Machine types up to 2.3 and Xen send no configuration; then this byte already starts an item.
  state_ = type_ == type_byte(SectionType::configuration) ? State::configuration : State::configuration_event;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::run_configuration() {
  if (state_ == State::configuration) {
    StreamError error;
    switch (configuration_.read(in_, error)) {
      case Step::need_more:
      case Step::parked:
        return ParseStatus::need_more;
      case Step::failed:
        return fail(error);
      case Step::done:
        break;
    }
    const Configuration& configuration = configuration_.configuration();
    ram_.set_announced(configuration.has("x-ignore-shared"), configuration.has("mapped-ram"));
    state_ = State::configuration_event;
  }
  if (!events_.writable()) return park(Wait::events);
  if (refused(events_.on_configuration(configuration_.configuration()), "configuration"))
    return ParseStatus::failed;
  if (configuration_.configuration().present) {
    type_ = configuration_.next_type();
    item_at_ = in_.offset() - 1;
  }
  state_ = State::item;
  return std::nullopt;
}

// ---- Items
// ---------------------------------------------------------------------------------------------------------

bool MainChannel::known_type(uint8_t type) const noexcept {
  return type <= type_byte(SectionType::full) || type == type_byte(SectionType::command);
}

MainChannel::Outcome MainChannel::run_item() {
  const std::byte* p = nullptr;
  switch (state_) {
    case State::next_item: {
      if ((p = in_.take(1)) == nullptr) return ParseStatus::need_more;
      type_ = std::to_integer<uint8_t>(*p);
      item_at_ = in_.offset() - 1;
      state_ = State::item;
      return std::nullopt;
    }
    case State::item: {
      if (!events_.writable()) return park(Wait::events);
      if (in_checkpoint_) return run_checkpoint_item();
      switch (static_cast<SectionType>(type_)) {
        case SectionType::command:
          state_ = State::command;
          return std::nullopt;
        case SectionType::start:
          state_ = State::section_id;
          return std::nullopt;
        case SectionType::full:
          state_ = ram_ended_ ? State::tail_first : State::section_id;
          break;
        case SectionType::part:
        case SectionType::end:
          state_ = State::part_id;
          return std::nullopt;
        case SectionType::eof:
          if (!ram_ended_ && !(settings_.background_snapshot && ram_started_))
            return fail(
                make_error(ErrorClass::bad_stream, item_at_, kSectionField,
                           "the stream ends before the END section of RAM%s",
                           ram_started_ ? "; a background-snapshot needs that capability on here" : ""));
          if (!ram_ended_ && !end_of_ram()) return ParseStatus::failed;
          state_ = State::tail_first;
          break;
        case SectionType::subsection:
        case SectionType::vmdescription:
        case SectionType::configuration:
        case SectionType::footer:
        default:
          return fail(make_error(ErrorClass::bad_stream, item_at_, "section type",
                                 "0x%02x where a section begins", type_));
      }
      header_[0] = std::byte{type_};
      header_bytes_ = 1;
      header_passed_ = 0;
      return std::nullopt;
    }
    case State::command: {
      StreamError error;
      switch (command_.read(in_, error)) {
        case Step::need_more:
        case Step::parked:
          return ParseStatus::need_more;
        case Step::failed:
          return fail(error);
        case Step::done:
          break;
      }
      if (refused(events_.on_command(command_.command(), command_.payload()), "command"))
        return ParseStatus::failed;
      state_ = State::next_item;
      return std::nullopt;
    }
    default: {
      if ((p = in_.take(4)) == nullptr) return ParseStatus::need_more;
      header_[0] = std::byte{type_};
      std::copy_n(p, 4, header_.begin() + 1);
      header_bytes_ = 5;
      return begin_part(load_be32(p));
    }
  }
}

MainChannel::Outcome MainChannel::begin_part(uint32_t id) {
  const auto found =
      std::find_if(sections_.begin(), sections_.end(), [id](const Section& s) { return s.id == id; });
  if (found == sections_.end())
    return fail(make_error(ErrorClass::bad_stream, item_at_, "section: section_id",
                           "%s of section %u, which has not been started",
                           type_ == type_byte(SectionType::part) ? "PART" : "END", id));
  if (found->ended && !in_checkpoint_)
    return fail(make_error(ErrorClass::bad_stream, item_at_, "section: section_id",
                           "section %u ('%s') goes on behind its END", id, found->idstr.c_str()));
  if (in_checkpoint_ && found->kind != SectionKind::ram)
    return fail(make_error(ErrorClass::bad_stream, item_at_, "COLO: checkpoint",
                           "END of section '%s': only RAM is loaded", found->idstr.c_str()));
  checkpoint_has_ram_ = in_checkpoint_;
  current_ = &*found;
  if (type_ == type_byte(SectionType::end)) found->ended = true;
  if (found->kind == SectionKind::ram) {
    events_.on_ram_section_begin(static_cast<SectionType>(type_), id);
    ram_.begin(false);
    state_ = State::ram_body;
    return std::nullopt;
  }
  pass_header();
  other_.begin(found->kind);
  state_ = State::other_body;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::run_section_header() {
  const std::byte* p = nullptr;
  if (state_ == State::section_id) {
    if ((p = in_.take(5)) == nullptr) return ParseStatus::need_more;
    header_[0] = std::byte{type_};
    std::copy_n(p, 5, header_.begin() + 1);
    header_bytes_ = 6;
    id_ = load_be32(p);
    name_length_ = std::to_integer<uint8_t>(p[4]);
    if (name_length_ == 0)
      return fail(make_error(ErrorClass::bad_stream, item_at_, "section: idstr", "empty name"));
    state_ = State::section_name;
  }
  if (state_ == State::section_name) {
    const std::size_t bytes = name_length_ + 8U;
    if ((p = in_.take(bytes)) == nullptr) return ParseStatus::need_more;
    std::copy_n(p, bytes, header_.begin() + 6);
    header_bytes_ += bytes;
    state_ = State::section_begin;
  }
  return begin_section();
}

// header_ holds a START, or a FULL before RAM END.
MainChannel::Outcome MainChannel::begin_section() {
  Section section;
  section.id = id_;
  section.idstr.assign(reinterpret_cast<const char*>(header_.data()) + 6, name_length_);
  section.instance_id = load_be32(header_.data() + 6 + name_length_);
  section.version_id = load_be32(header_.data() + 10 + name_length_);
  section.kind = section_kind(section.idstr);
  const char* const name = section.idstr.c_str();
  const bool full = type_ == type_byte(SectionType::full);

  if (full) {
    if (section.kind != SectionKind::virtio_mem_early) {
      // QEMU, ram_save_complete is not called for a background-snapshot: device state follows the last PART.
      if (settings_.background_snapshot && ram_started_) {
        if (!end_of_ram()) return ParseStatus::failed;
        header_passed_ = 0;
        state_ = State::tail_first;
        return std::nullopt;
      }
      return fail(
          make_error(ErrorClass::unsupported, item_at_, kSectionField,
                     "device '%s' comes before the END section of RAM, and its length is not in the stream%s",
                     name, ram_started_ ? " (a background-snapshot needs that capability on here)" : ""));
    }
  } else {
    for (const Section& other : sections_) {
      const bool same = other.idstr == section.idstr && other.instance_id == section.instance_id;
      if (other.id == section.id || same)
        return fail(make_error(ErrorClass::bad_stream, item_at_, kSectionField,
                               "section %u ('%s') is started twice", section.id, name));
    }
    if (section.kind != SectionKind::ram && colo_enabled())
      return fail(
          make_error(ErrorClass::unsupported, item_at_, kSectionField,
                     "iterable section '%s' with x-colo: checkpoints of RAM alone are loaded; turn the "
                     "capability off that makes it (block, dirty-bitmaps), or remove the device",
                     name));
    if (section.kind == SectionKind::device || section.kind == SectionKind::virtio_mem_early) {
      const char* const remedy = section_remedy(section.idstr);
      return fail(make_error(ErrorClass::unsupported, item_at_, kSectionField, "iterable section '%s'%s%s",
                             name, remedy != nullptr ? ": " : "", remedy != nullptr ? remedy : ""));
    }
    if (sections_.size() == kSectionsMax)
      return fail(make_error_values(ErrorClass::bad_stream, item_at_, "section: number of sections",
                                    sections_.size() + 1, kSectionsMax));
  }
  const uint32_t version = section.kind == SectionKind::ram ? kRamVersion : 1;
  if (section.version_id != version)
    return fail(make_error(ErrorClass::unsupported, item_at_, "section: version_id",
                           "'%s' has version %u, only %u is known", name, section.version_id, version));
  if (section.kind == SectionKind::ram && section.instance_id != 0)
    return fail(make_error_values(ErrorClass::bad_stream, item_at_, "section: instance_id",
                                  section.instance_id, 0, "of 'ram'"));

  if (full) {
    early_ = std::move(section);
    current_ = &early_;
  } else {
    sections_.push_back(std::move(section));
    current_ = &sections_.back();
  }
  if (current_->kind == SectionKind::ram) {
    ram_started_ = true;
    ram_.begin(true);
    state_ = State::ram_body;
    return std::nullopt;
  }
  pass_header();
  other_.begin(current_->kind);
  state_ = State::other_body;
  return std::nullopt;
}

SectionHeader MainChannel::current_header() const noexcept {
  return {static_cast<SectionType>(type_), current_->id, current_->idstr, current_->instance_id,
          current_->version_id};
}

// There was room when the item began.
void MainChannel::pass_header() noexcept {
  counters_.other_sections.add();
  counters_.verbatim_bytes.add(header_bytes_);
  events_.on_other_section_begin(current_header());
  static_cast<void>(events_.on_verbatim({header_.data(), header_bytes_}));
}

// ---- RAM
// -----------------------------------------------------------------------------------------------------------

MainChannel::Outcome MainChannel::run_ram() {
  switch (state_) {
    case State::ram_body:
      switch (ram_.run(in_, error_)) {
        case RamSection::Event::need_more:
          return ParseStatus::need_more;
        case RamSection::Event::parked:
          return park(file_position_wanted().has_value() ? Wait::file_position : Wait::lane);
        case RamSection::Event::failed:
          return fail(error_);
        case RamSection::Event::blocks_listed:
          state_ = State::ram_listed;
          return std::nullopt;
        case RamSection::Event::flush:
          return met_flush();
        case RamSection::Event::eos:
          return met_eos();
      }
      return std::nullopt;
    case State::ram_listed: {
      if (refused(events_.on_ram_start(current_header(), ram_.blocks()), "RAM block list"))
        return ParseStatus::failed;
      StreamError error;
      if (!ram_.resolve(error)) return fail(error);
      state_ = State::ram_ready;
      return std::nullopt;
    }
    case State::ram_ready:
      if (!events_.writable()) return park(Wait::events);
      state_ = State::ram_body;
      return std::nullopt;
    case State::ram_settle: {
      // EOS in round mode is no barrier, but helpers must be done (QEMU, wait_for_decompress_done).
      StreamError error;
      if (!ram_.settled(error)) return park(Wait::settle);
      if (error) return fail(error);
      ram_.fence();
      state_ = State::ram_eos;
      return std::nullopt;
    }
    default:
      ++ram_sections_;
      if (type_ == type_byte(SectionType::end) && !end_of_ram()) return ParseStatus::failed;
      state_ = State::section_footer;
      return std::nullopt;
  }
}

// QEMU 8.1 and later write this record where all channels have to meet; 8.1.0 and 8.1.1 even without multifd.
MainChannel::Outcome MainChannel::met_flush() noexcept {
  if (settings_.multifd_channels == 0) return std::nullopt;
  if (mode_ == FlushMode::automatic) mode_ = FlushMode::round;
  if (mode_ == FlushMode::section && settings_.multifd_flush_after_each_section == FlushMode::automatic)
    return fail(make_error(ErrorClass::bad_stream, in_.offset() - 8, "RAM section: flags",
                           "MULTIFD_FLUSH, but the START section had none: say what the source's "
                           "multifd-flush-after-each-section is"));
  after_marker_ = State::ram_body;
  state_ = State::marker;
  return std::nullopt;
}

StreamError MainChannel::closed_too_early() const noexcept {
  StreamError error = make_error(ErrorClass::truncated, offset(), "main channel",
                                 "closed inside the device state, before the source was told the outcome: "
                                 "it has failed or was cancelled");
  error.channel.index = ChannelName::kMain;
  return error;
}

StreamError MainChannel::closed_unread() const noexcept {
  StreamError error = make_error(
      ErrorClass::truncated, offset(), "main channel",
      "everything is here, but the source closed before it could read that: if it still exists its guest "
      "goes "
      "on there (query-migrate), so do not continue the destination; if it is dead, the guest here is whole");
  error.channel.index = ChannelName::kMain;
  return error;
}

MainChannel::Outcome MainChannel::met_eos() noexcept {
  if (settings_.multifd_channels > 0 && mode_ == FlushMode::automatic) mode_ = FlushMode::section;
  const bool marker = settings_.multifd_channels == 0 || mode_ == FlushMode::section;
  after_marker_ = State::ram_eos;
  state_ = marker ? State::marker : State::ram_settle;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::run_marker() {
  StreamError error;
  if (!ram_.settled(error)) return park(Wait::settle);
  if (error) return fail(error);
  ram_.fence();
  if (settings_.multifd_channels > 0 && !barrier_.all_arrived(epoch_)) {
    barrier_.wait(epoch_);
    return park(Wait::barrier);
  }
  events_.on_epoch_closed(epoch_);
  barrier_.release(epoch_);
  ++epoch_;
  state_ = after_marker_;
  // Sources send tens of thousands of empty PARTs: nothing to copy behind them.
  if (colo_enabled() && pages_copied_ != ram_.page_records()) state_ = State::colo_copy;
  return std::nullopt;
}

// All markers have been met. QEMU 9.1 and 9.2 still send one SYNC per channel: it must not wait for a marker.
bool MainChannel::end_of_ram() noexcept {
  ram_ended_ = true;
  if (const uint32_t i = barrier_.release_all(); i < barrier_.channels()) {
    fail(make_error(
        ErrorClass::bad_stream, item_at_, kSectionField,
        "END of RAM while multifd channel %u has pages behind its last SYNC: its stream is corrupt", i));
    return false;
  }
  if (type_ != type_byte(SectionType::end)) events_.on_ram_complete();  // no END section: background-snapshot
  return true;
}

// ---- Ends of sections
// ------------------------------------------------------------------------------------------------

MainChannel::Outcome MainChannel::run_section_tail() {
  const std::byte* p = nullptr;
  switch (state_) {
    case State::other_body: {
      StreamError error;
      const uint64_t before = in_.offset();
      const Step step = other_.read(in_, error);
      counters_.verbatim_bytes.add(in_.offset() - before);
      switch (step) {
        case Step::need_more:
          return ParseStatus::need_more;
        case Step::parked:
          return park(Wait::events);
        case Step::failed:
          return fail(error);
        case Step::done:
          break;
      }
      state_ = State::section_footer;
      return std::nullopt;
    }
    case State::section_footer:
      if (!footers_.has_value()) {
        state_ = State::footer_unknown;
      } else {
        state_ = *footers_ ? State::footer_rest : State::section_end;
        has_footer_ = *footers_;
      }
      return std::nullopt;
    case State::footer_unknown: {
      // Property send-section-footer: off for machine types up to 2.3. No item starts with a footer's byte.
      if ((p = in_.take(1)) == nullptr) return ParseStatus::need_more;
      const uint8_t next = std::to_integer<uint8_t>(*p);
      if (next == type_byte(SectionType::footer)) {
        footers_ = true;
        has_footer_ = true;
        type_known_ = true;
        state_ = State::footer_rest;
        return std::nullopt;
      }
      if (!known_type(next))
        return fail(make_error(ErrorClass::bad_stream, in_.offset() - 1, "section footer",
                               "0x%02x is neither a footer nor the begin of the next section", next));
      footers_ = false;
      has_footer_ = false;
      type_known_ = true;
      header_[0] = *p;  // kept until the end has been told
      state_ = State::section_end;
      return std::nullopt;
    }
    case State::footer_rest: {
      // The type byte has been read already when it had to be found out what it is.
      const std::size_t bytes = type_known_ ? 4 : 5;
      if ((p = in_.take(bytes)) == nullptr) return ParseStatus::need_more;
      footer_at_ = in_.offset() - bytes;
      if (!type_known_ && *p != std::byte{type_byte(SectionType::footer)})
        return fail(make_error(ErrorClass::bad_stream, footer_at_, "section footer",
                               "missing behind '%s': 0x%02x", current_->idstr.c_str(),
                               std::to_integer<unsigned>(*p)));
      type_known_ = false;
      if (const uint32_t id = load_be32(p + (bytes - 4)); id != current_->id)
        return fail(make_error_values(ErrorClass::bad_stream, footer_at_, "section footer: section_id", id,
                                      current_->id));
      state_ = State::section_end;
      return std::nullopt;
    }
    default:
      return end_of_section();
  }
}

MainChannel::Outcome MainChannel::end_of_section() {
  if (!events_.writable()) return park(Wait::events);
  const SectionType type = static_cast<SectionType>(type_);
  if (current_->kind == SectionKind::ram) {
    events_.on_ram_section_end(type, current_->id, has_footer_);
    if (type == SectionType::end && !in_checkpoint_) events_.on_ram_complete();
  } else {
    if (has_footer_) {
      std::array<std::byte, 5> footer{std::byte{type_byte(SectionType::footer)}};
      store_be32(footer.data() + 1, current_->id);
      static_cast<void>(events_.on_verbatim(footer));
      counters_.verbatim_bytes.add(footer.size());
    }
    events_.on_other_section_end(current_header());
  }
  current_ = nullptr;
  if (type_known_) {
    type_known_ = false;
    type_ = std::to_integer<uint8_t>(header_[0]);
    item_at_ = in_.offset() - 1;
    state_ = State::item;
  } else {
    state_ = State::next_item;
  }
  return std::nullopt;
}

// ---- Device state
// ----------------------------------------------------------------------------------------------------

MainChannel::Outcome MainChannel::run_tail() noexcept {
  while (header_passed_ < header_bytes_) {
    const std::size_t taken = events_.on_tail(Bytes{header_.data(), header_bytes_}.subspan(header_passed_));
    if (taken == 0) return park(Wait::events);
    header_passed_ += taken;
    counters_.tail_bytes.add(taken);
  }
  state_ = State::tail;
  for (;;) {
    const Bytes piece = in_.peek_some(in_.available());
    if (piece.empty()) return ParseStatus::need_more;
    const std::size_t taken = events_.on_tail(piece);
    if (taken == 0) return park(Wait::events);
    in_.skip(taken);
    counters_.tail_bytes.add(taken);
    if (!colo_enabled()) continue;
    switch (colo_->tail()) {
      case ColoEvents::Tail::more:
        break;
      case ColoEvents::Tail::ended:
        state_ = State::colo_begin;
        return std::nullopt;
      case ColoEvents::Tail::too_long:
        return fail(make_error_values(ErrorClass::bad_stream, in_.offset(), "device state: bytes",
                                      counters_.tail_bytes.read(), kColoStateBytesMax, "with x-colo"));
    }
  }
}

// ---- COLO
// ---------------------------------------------------------------------------------------------------------

MainChannel::Outcome MainChannel::run_colo() noexcept {
  if (state_ == State::colo_copy) {
    if (!colo_->copy_some()) return park(Wait::colo);
    pages_copied_ = ram_.page_records();
    state_ = after_marker_;
    return std::nullopt;
  }
  if (state_ == State::colo_begin) {
    colo_->begin_checkpoints();
    state_ = State::colo_message;
  }
  StreamError error;
  switch (checkpoint_.read(in_, error)) {
    case Step::need_more:
      return ParseStatus::need_more;
    case Step::parked:
      return park(Wait::colo);
    case Step::failed:
      return fail(error);
    case Step::done:
      break;
  }
  in_checkpoint_ = true;
  checkpoint_has_ram_ = false;
  state_ = State::next_item;
  return std::nullopt;
}

// What a primary sends between VMSTATE_SEND and VMSTATE_SIZE (QEMU migration/savevm.c,
// qemu_savevm_live_state): RAM's END, then EOF; from 10.0 on SWITCHOVER_START in front.
MainChannel::Outcome MainChannel::run_checkpoint_item() noexcept {
  switch (static_cast<SectionType>(type_)) {
    case SectionType::command:
      state_ = State::command;
      return std::nullopt;
    case SectionType::end:
      if (checkpoint_has_ram_) break;
      state_ = State::part_id;
      return std::nullopt;
    case SectionType::eof:
      if (!checkpoint_has_ram_) break;
      in_checkpoint_ = false;
      checkpoint_.ram_done();
      state_ = State::colo_message;
      return std::nullopt;
    case SectionType::start:
    case SectionType::part:
    case SectionType::full:
    case SectionType::subsection:
    case SectionType::vmdescription:
    case SectionType::configuration:
    case SectionType::footer:
    default:
      break;
  }
  return fail(make_error(ErrorClass::bad_stream, item_at_, "COLO: checkpoint",
                         "0x%02x where %s was expected: one END section of RAM, then EOF", type_,
                         checkpoint_has_ram_ ? "EOF" : "the END section of RAM"));
}

}  // namespace migrx

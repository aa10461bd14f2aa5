#include "loader/main/main_channel.h"

#include <algorithm>

namespace migrx {
namespace {

constexpr uint32_t kMagic = 0x5145564d;  // "QEVM"
constexpr uint32_t kVersion = 3;
constexpr uint32_t kRamVersion = 4;

// The longest field that is taken as one piece: a compressed page.
constexpr std::size_t kCarryMax = kCompressedPageBytesMax;

SectionType type_of(std::byte b) {
  return static_cast<SectionType>(b);
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
      tail_(events, colo),
      postcopy_(events, blocks),
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
    const Outcome outcome = step();
    if (outcome.has_value()) return *outcome;
  }
}

MainChannel::Outcome MainChannel::step() noexcept {
  switch (state_) {
    case State::header:
      return at_header();
    case State::header_event:
      return at_header_event();
    case State::first_item:
      return at_first_item();
    case State::configuration:
      return at_configuration();
    case State::configuration_event:
      return at_configuration_event();
    case State::item:
      return at_item();
    case State::command:
      return at_command();
    case State::section_header:
      return at_section_header();
    case State::other_body:
      return at_other_body();
    case State::ram_body:
      return at_ram_body();
    case State::ram_listed:
      return at_ram_listed();
    case State::ram_ready:
      return at_ram_ready();
    case State::marker:
      return at_marker();
    case State::ram_settle:
      return at_ram_settle();
    case State::ram_eos:
      return at_ram_eos();
    case State::section_footer:
      return at_section_footer();
    case State::section_end:
      return at_section_end();
    case State::tail:
      return at_tail();
    case State::postcopy_begin:
      return at_postcopy_begin();
    case State::postcopy_front:
      return at_postcopy_front();
    case State::postcopy:
      return at_postcopy();
    case State::colo_copy:
      return at_colo_copy();
    case State::colo_begin:
      return at_colo_begin();
    case State::colo_message:
      return at_colo_message();
    case State::failed:
      break;
  }
  return ParseStatus::failed;
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
  if ((state_ == State::tail && !colo_enabled()) || state_ == State::postcopy) return {};
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
  error.channel = ChannelName::main();
  error.offset = offset();
  error.field = where;
  error_ = error;
  state_ = State::failed;
  return error;
}

ParseStatus MainChannel::fail(const StreamError& error) noexcept {
  error_ = error;
  error_.channel = ChannelName::main();
  state_ = State::failed;
  return ParseStatus::failed;
}

MainChannel::Outcome MainChannel::unless_done(Step step, const StreamError& error, Wait wait) noexcept {
  switch (step) {
    case Step::need_more:
      return ParseStatus::need_more;
    case Step::parked:
      return park(wait);
    case Step::failed:
      return fail(error);
    case Step::done:
      break;
  }
  return std::nullopt;
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
  counters_.tail_bytes.set(tail_.bytes());
  counters_.markers.set(epoch_.number());
  counters_.per_round.set(mode_ == FlushMode::round ? 1 : 0);
  counters_.begun_anew.set(ram_.begun_anew());
}

// ---- Header and configuration

MainChannel::Outcome MainChannel::at_header() noexcept {
  const std::byte* const p = in_.take(8);
  if (p == nullptr) return ParseStatus::need_more;
  if (load_be32(p) != kMagic)
    return fail(make_error(ErrorClass::bad_stream, 0, kHeaderField, "magic 0x%08x: not a migration stream",
                           load_be32(p)));
  if (const uint32_t version = load_be32(p + 4); version != kVersion)
    return fail(
        make_error_values(ErrorClass::unsupported, 4, "header: version", version, kVersion,
                          version == 2 ? "the format of QEMU before 0.9.1" : "unknown stream format"));
  state_ = State::header_event;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_header_event() {
  if (!events_.writable()) return park(Wait::events);
  if (refused(events_.on_header(kVersion), kHeaderField)) return ParseStatus::failed;
  state_ = State::first_item;
  return std::nullopt;
}

// Machine types up to 2.3 and Xen send no configuration.
MainChannel::Outcome MainChannel::at_first_item() noexcept {
  const std::optional<std::byte> type = in_.peek();
  if (!type) return ParseStatus::need_more;
  item_at_ = in_.offset();
  if (type_of(*type) != SectionType::configuration) {
    state_ = State::configuration_event;
    return std::nullopt;
  }
  in_.skip(1);
  state_ = State::configuration;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_configuration() {
  StreamError error;
  if (const Outcome outcome = unless_done(configuration_.read(in_, error), error, Wait::none)) return outcome;
  const Configuration& configuration = configuration_.configuration();
  ram_.set_announced(configuration.has("x-ignore-shared"), configuration.has("mapped-ram"));
  state_ = State::configuration_event;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_configuration_event() {
  if (!events_.writable()) return park(Wait::events);
  if (refused(events_.on_configuration(configuration_.configuration()), "configuration"))
    return ParseStatus::failed;
  state_ = State::item;
  return std::nullopt;
}

// ---- Items

// Its type is looked at, and taken by the reader it belongs to: what begins the tail stays where it is.
MainChannel::Outcome MainChannel::at_item() {
  const std::optional<std::byte> type = in_.peek();
  if (!type) return ParseStatus::need_more;
  if (!events_.writable()) return park(Wait::events);
  type_ = type_of(*type);
  item_at_ = in_.offset();
  if (in_checkpoint_) return begin_checkpoint_item();
  switch (type_) {
    case SectionType::command:
      return begin_command();
    case SectionType::start:
    case SectionType::part:
    case SectionType::end:
      return begin_header();
    case SectionType::full:
      return ram_ended_ ? begin_tail({}) : begin_header();
    case SectionType::eof:
      return end_of_sections();
    case SectionType::subsection:
    case SectionType::vmdescription:
    case SectionType::configuration:
    case SectionType::footer:
      break;
  }
  return fail(make_error(ErrorClass::bad_stream, item_at_, "section type", "0x%02x where a section begins",
                         static_cast<unsigned>(type_)));
}

MainChannel::Outcome MainChannel::begin_command() noexcept {
  in_.skip(1);
  state_ = State::command;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::begin_header() noexcept {
  in_.skip(1);
  header_.begin(type_, item_at_);
  state_ = State::section_header;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::begin_tail(Bytes front) noexcept {
  tail_.begin(front);
  state_ = State::tail;
  return std::nullopt;
}

// EOF: a stream without device state.
MainChannel::Outcome MainChannel::end_of_sections() noexcept {
  if (!ram_ended_) {
    if (!settings_.background_snapshot || !ram_started_)
      return fail(make_error(ErrorClass::bad_stream, item_at_, kSectionField,
                             "the stream ends before the END section of RAM%s",
                             ram_started_ ? "; a background-snapshot needs that capability on here" : ""));
    if (!end_of_ram()) return ParseStatus::failed;
  }
  return begin_tail({});
}

MainChannel::Outcome MainChannel::at_command() {
  StreamError error;
  if (const Outcome outcome = unless_done(command_.read(in_, error), error, Wait::none)) return outcome;
  if (command_.switches_to_postcopy()) return begin_postcopy();
  if (command_.page_sizes() != 0 && command_.command() == MigCommand::postcopy_advise) {
    if (ram_started_)
      return fail(make_error(ErrorClass::bad_stream, item_at_, "command",
                             "POSTCOPY_ADVISE behind the list of RAM blocks"));
    ram_.set_page_sizes(command_.page_sizes());
  }
  if (refused(events_.on_command(command_.command(), command_.payload()), "command"))
    return ParseStatus::failed;
  state_ = State::item;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_section_header() {
  StreamError error;
  if (const Outcome outcome = unless_done(header_.read(in_, error), error, Wait::none)) return outcome;
  const bool named = type_ == SectionType::start || type_ == SectionType::full;
  return named ? begin_section() : begin_part(header_.header().section_id);
}

MainChannel::Outcome MainChannel::begin_part(uint32_t id) {
  const auto found =
      std::find_if(sections_.begin(), sections_.end(), [id](const Section& s) { return s.id == id; });
  if (found == sections_.end())
    return fail(make_error(ErrorClass::bad_stream, item_at_, "section: section_id",
                           "%s of section %u, which has not been started",
                           type_ == SectionType::part ? "PART" : "END", id));
  if (found->ended && !in_checkpoint_)
    return fail(make_error(ErrorClass::bad_stream, item_at_, "section: section_id",
                           "section %u ('%s') goes on after its END", id, found->idstr.c_str()));
  if (in_checkpoint_ && found->kind != SectionKind::ram)
    return fail(make_error(ErrorClass::bad_stream, item_at_, "COLO: checkpoint",
                           "END of section '%s': only RAM is loaded", found->idstr.c_str()));
  checkpoint_has_ram_ = in_checkpoint_;
  current_ = &*found;
  if (type_ == SectionType::end) found->ended = true;
  if (found->kind == SectionKind::ram) {
    events_.on_ram_section_begin(type_, id);
    ram_.begin(false);
    state_ = State::ram_body;
    return std::nullopt;
  }
  pass_header();
  other_.begin(found->kind);
  state_ = State::other_body;
  return std::nullopt;
}

// A START, or a FULL before RAM END.
MainChannel::Outcome MainChannel::begin_section() {
  const SectionHeader& header = header_.header();
  Section section;
  section.id = header.section_id;
  section.idstr.assign(header.idstr);
  section.instance_id = header.instance_id;
  section.version_id = header.version_id;
  section.kind = section_kind(section.idstr);
  const char* const name = section.idstr.c_str();
  const bool full = type_ == SectionType::full;

  if (full) {
    if (section.kind != SectionKind::virtio_mem_early) {
      // QEMU, ram_save_complete is not called for a background-snapshot: device state follows the last PART.
      if (settings_.background_snapshot && ram_started_) {
        if (!end_of_ram()) return ParseStatus::failed;
        return begin_tail(header_.bytes());
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
  return {type_, current_->id, current_->idstr, current_->instance_id, current_->version_id};
}

// There was room when the item began.
void MainChannel::pass_header() noexcept {
  counters_.other_sections.add();
  counters_.verbatim_bytes.add(header_.bytes().size());
  events_.on_other_section_begin(current_header());
  static_cast<void>(events_.on_verbatim(header_.bytes()));
}

// ---- RAM

MainChannel::Outcome MainChannel::at_ram_body() noexcept {
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
}

MainChannel::Outcome MainChannel::at_ram_listed() {
  if (refused(events_.on_ram_start(current_header(), ram_.blocks()), "RAM block list"))
    return ParseStatus::failed;
  StreamError error;
  if (!ram_.resolve(error)) return fail(error);
  state_ = State::ram_ready;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_ram_ready() noexcept {
  if (!events_.writable()) return park(Wait::events);
  state_ = State::ram_body;
  return std::nullopt;
}

// EOS in round mode is no barrier, but helpers must be done (QEMU, wait_for_decompress_done).
MainChannel::Outcome MainChannel::at_ram_settle() noexcept {
  StreamError error;
  if (!ram_.settled(error)) return park(Wait::settle);
  if (error) return fail(error);
  ram_.fence();
  state_ = State::ram_eos;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_ram_eos() noexcept {
  ++ram_sections_;
  if (type_ == SectionType::end && !end_of_ram()) return ParseStatus::failed;
  state_ = State::section_footer;
  return std::nullopt;
}

// QEMU 8.1 and later write this record where all channels have to meet; 8.1.0 and 8.1.1 even without multifd.
MainChannel::Outcome MainChannel::met_flush() noexcept {
  if (settings_.multifd_channels == 0) return std::nullopt;
  if (mode_ == FlushMode::automatic) mode_ = FlushMode::round;
  if (mode_ == FlushMode::section && settings_.multifd_flush_after_each_section == FlushMode::automatic)
    return fail(make_error(ErrorClass::bad_stream, in_.offset() - 8, "RAM section: flags",
                           "MULTIFD_FLUSH, but the START section had none: give the source's value with "
                           "--multifd-flush-after-each-section"));
  after_marker_ = State::ram_body;
  state_ = State::marker;
  return std::nullopt;
}

StreamError MainChannel::closed_too_early() const noexcept {
  StreamError error = make_error(ErrorClass::truncated, offset(), "main channel",
                                 "closed inside the device state, before the source was told the outcome: "
                                 "it has failed or was cancelled");
  error.channel = ChannelName::main();
  return error;
}

StreamError MainChannel::closed_unread() const noexcept {
  StreamError error =
      make_error(ErrorClass::truncated, offset(), "main channel",
                 "all of the guest is here, but the source closed before it could read that: if the source "
                 "still exists, its guest goes on there (query-migrate), so do not continue the destination; "
                 "if the source is dead, the guest here is whole");
  error.channel = ChannelName::main();
  return error;
}

MainChannel::Outcome MainChannel::met_eos() noexcept {
  if (settings_.multifd_channels > 0 && mode_ == FlushMode::automatic) mode_ = FlushMode::section;
  const bool marker = settings_.multifd_channels == 0 || mode_ == FlushMode::section;
  after_marker_ = State::ram_eos;
  state_ = marker ? State::marker : State::ram_settle;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_marker() noexcept {
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
  epoch_ = epoch_.next();
  state_ = after_marker_;
  // Sources send tens of thousands of empty PARTs: nothing to copy after them.
  if (colo_enabled() && pages_copied_ != ram_.page_records()) state_ = State::colo_copy;
  return std::nullopt;
}

// All markers have been met. QEMU 9.1 and 9.2 still send one SYNC per channel: it must not wait for a marker.
bool MainChannel::end_of_ram() noexcept {
  ram_ended_ = true;
  if (const std::optional<MultifdId> late = barrier_.release_all()) {
    fail(
        make_error(ErrorClass::bad_stream, item_at_, kSectionField,
                   "END of RAM while multifd channel %u has pages after its last SYNC: its stream is corrupt",
                   late->number()));
    return false;
  }
  if (type_ != SectionType::end) events_.on_ram_complete();  // no END section: background-snapshot
  return true;
}

// ---- Other bodies, ends of sections

MainChannel::Outcome MainChannel::at_other_body() noexcept {
  StreamError error;
  const uint64_t before = in_.offset();
  const Step step = other_.read(in_, error);
  counters_.verbatim_bytes.add(in_.offset() - before);
  if (const Outcome outcome = unless_done(step, error, Wait::events)) return outcome;
  state_ = State::section_footer;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_section_footer() noexcept {
  StreamError error;
  const Step step = footer_.read(in_, current_->id, current_->idstr, error);
  if (const Outcome outcome = unless_done(step, error, Wait::none)) return outcome;
  state_ = State::section_end;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_section_end() noexcept {
  if (!events_.writable()) return park(Wait::events);
  const bool has_footer = footer_.present();
  if (current_->kind == SectionKind::ram) {
    events_.on_ram_section_end(type_, current_->id, has_footer);
    if (type_ == SectionType::end && !in_checkpoint_) events_.on_ram_complete();
  } else {
    if (has_footer) {
      std::array<std::byte, 5> footer{static_cast<std::byte>(SectionType::footer)};
      store_be32(footer.data() + 1, current_->id);
      static_cast<void>(events_.on_verbatim(footer));
      counters_.verbatim_bytes.add(footer.size());
    }
    events_.on_other_section_end(current_header());
  }
  current_ = nullptr;
  state_ = State::item;
  return std::nullopt;
}

// ---- Device state

MainChannel::Outcome MainChannel::at_tail() noexcept {
  StreamError error;
  if (const Outcome outcome = unless_done(tail_.read(in_, error), error, Wait::events)) return outcome;
  state_ = State::colo_begin;
  return std::nullopt;
}

// ---- Postcopy

MainChannel::Outcome MainChannel::begin_postcopy() noexcept {
  if (!ram_started_ || ram_ended_)
    return fail(make_error(ErrorClass::bad_stream, item_at_, "command", "%s %s",
                           to_string(command_.command()),
                           ram_ended_ ? "behind the END section of RAM" : "before the list of RAM blocks"));
  // What sections brought is in memory: each waits for that at its end.
  ram_ended_ = true;
  // Sources with multifd have their channels meet in the last PART before, and go on with SYNCs alone.
  if (const std::optional<MultifdId> late = barrier_.release_all())
    return fail(make_error(ErrorClass::bad_stream, item_at_, "command",
                           "%s while multifd channel %u has pages after its last SYNC: its stream is corrupt",
                           to_string(command_.command()), late->number()));
  state_ = State::postcopy_begin;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_postcopy_begin() {
  if (!events_.writable()) return park(Wait::events);
  if (refused(events_.on_postcopy(), "command")) return ParseStatus::failed;
  postcopy_.begin(item_at_);
  state_ = State::postcopy_front;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_postcopy_front() {
  while (front_done_ < command_.head().size()) {
    const std::optional<std::size_t> passed = relay(command_.head().subspan(front_done_));
    if (!passed) return ParseStatus::failed;
    if (*passed == 0) return park(Wait::events);
    front_done_ += *passed;
  }
  state_ = State::postcopy;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_postcopy() {
  for (;;) {
    const Bytes piece = in_.peek_some(in_.available());
    if (piece.empty()) return ParseStatus::need_more;
    const std::optional<std::size_t> passed = relay(piece);
    if (!passed) {
      in_.skip(piece.size());  // read, and not passed on
      return ParseStatus::failed;
    }
    if (*passed == 0) return park(Wait::events);
    in_.skip(*passed);
  }
}

// Everything is read before its first byte is passed on.
std::optional<std::size_t> MainChannel::relay(Bytes bytes) {
  StreamError error;
  if (bytes.size() > read_ahead_ && !postcopy_.over()) {
    if (!postcopy_.read(bytes.subspan(read_ahead_), error)) {
      fail(error);
      return std::nullopt;
    }
  }
  read_ahead_ = std::max(read_ahead_, bytes.size());
  const std::size_t passed = events_.on_tail(bytes);
  read_ahead_ -= passed;
  counters_.postcopy_bytes.add(passed);
  return passed;
}

// ---- COLO

MainChannel::Outcome MainChannel::at_colo_copy() noexcept {
  if (!colo_->copy_some()) return park(Wait::colo);
  pages_copied_ = ram_.page_records();
  state_ = after_marker_;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_colo_begin() noexcept {
  colo_->begin_checkpoints();
  state_ = State::colo_message;
  return std::nullopt;
}

MainChannel::Outcome MainChannel::at_colo_message() noexcept {
  StreamError error;
  if (const Outcome outcome = unless_done(checkpoint_.read(in_, error), error, Wait::colo)) return outcome;
  in_checkpoint_ = true;
  checkpoint_has_ram_ = false;
  state_ = State::item;
  return std::nullopt;
}

// What a primary sends between VMSTATE_SEND and VMSTATE_SIZE (QEMU migration/savevm.c,
// qemu_savevm_live_state): RAM's END, then EOF; from 10.0 on SWITCHOVER_START in front.
MainChannel::Outcome MainChannel::begin_checkpoint_item() noexcept {
  switch (type_) {
    case SectionType::command:
      return begin_command();
    case SectionType::end:
      if (checkpoint_has_ram_) break;
      return begin_header();
    case SectionType::eof:
      if (!checkpoint_has_ram_) break;
      in_.skip(1);
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
      break;
  }
  return fail(make_error(ErrorClass::bad_stream, item_at_, "COLO: checkpoint",
                         "0x%02x where %s was expected: one END section of RAM, then EOF",
                         static_cast<unsigned>(type_),
                         checkpoint_has_ram_ ? "EOF" : "the END section of RAM"));
}

}  // namespace migrx

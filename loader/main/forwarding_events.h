// Passes every event on unchanged. A class between the main channel and the destination (the session, the
// file loader, COLO's secondary) derives from it and overrides the events that it adds to.
#pragma once

#include "loader/main/main_events.h"

namespace migrx {

// Called on the thread of main's worker, as MainEvents are.
class ForwardingEvents : public MainEvents {
 public:
  // `next` must outlive this object.
  explicit ForwardingEvents(MainEvents& next) noexcept : next_(next) {}

  [[nodiscard]] bool writable() noexcept override { return next_.writable(); }
  StreamError on_header(uint32_t version) override { return next_.on_header(version); }
  StreamError on_configuration(const Configuration& configuration) override {
    return next_.on_configuration(configuration);
  }
  StreamError on_command(MigCommand command, Bytes payload) override {
    return next_.on_command(command, payload);
  }
  StreamError on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) override {
    return next_.on_ram_start(section, blocks);
  }
  void on_ram_section_begin(SectionType type, uint32_t section_id) noexcept override {
    next_.on_ram_section_begin(type, section_id);
  }
  void on_ram_section_end(SectionType type, uint32_t section_id, bool has_footer) noexcept override {
    next_.on_ram_section_end(type, section_id, has_footer);
  }
  void on_epoch_closed(Epoch epoch) noexcept override { next_.on_epoch_closed(epoch); }
  void on_ram_complete() noexcept override { next_.on_ram_complete(); }
  StreamError on_postcopy() override { return next_.on_postcopy(); }
  StreamError on_postcopy_discard(std::string_view idstr, uint64_t first, uint64_t pages) override {
    return next_.on_postcopy_discard(idstr, first, pages);
  }
  StreamError on_postcopy_package(uint32_t bytes) override { return next_.on_postcopy_package(bytes); }
  void on_other_section_begin(const SectionHeader& section) noexcept override {
    next_.on_other_section_begin(section);
  }
  [[nodiscard]] std::size_t on_verbatim(Bytes bytes) noexcept override { return next_.on_verbatim(bytes); }
  void on_other_section_end(const SectionHeader& section) noexcept override {
    next_.on_other_section_end(section);
  }
  [[nodiscard]] std::size_t on_tail(Bytes bytes) noexcept override { return next_.on_tail(bytes); }

 protected:
  [[nodiscard]] MainEvents& next() const noexcept { return next_; }

 private:
  MainEvents& next_;
};

}  // namespace migrx

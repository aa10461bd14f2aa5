#include "loader/snapshot/file_loader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>
#include <utility>

namespace migrx {
namespace {

constexpr std::size_t kReadBytes = 1 << 20;

StreamError file_error(ErrorClass error_class, uint64_t position, const std::string& text) {
  StreamError error = make_error(error_class, position, "file", "%s", text.c_str());
  error.channel.index = ChannelName::kMain;
  return error;
}

// The configuration section stands in the first few hundred bytes and names mapped-ram when it is on; the
// parser then checks the section properly.
bool announces_mapped_ram(Bytes head) {
  constexpr std::string_view kName("\x0amapped-ram", 11);
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  return text.find(kName) != std::string_view::npos;
}

}  // namespace

FileLoader::FileLoader(FileLoadSettings settings, BlockTable& blocks, Destination& destination,
                       const PageKernels& kernels, CompressJobs& compress)
    : ForwardingEvents(destination.events()),
      settings_(std::move(settings)),
      blocks_(blocks),
      destination_(destination),
      kernels_(kernels),
      compress_(compress) {}

FileLoader::~FileLoader() {
  if (fd_ >= 0) ::close(fd_);
}

StreamError FileLoader::run(const std::function<bool(uint64_t)>& turn) {
  StreamError error = open();
  if (!error) error = feed(turn);
  if (!error) error = await_verdict(turn);
  if (error) destination_.abandon();
  return error;
}

StreamError FileLoader::open() {
  fd_ = ::open(settings_.path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) return file_error(ErrorClass::io, 0, settings_.path + ": " + std::strerror(errno));
  position_ = settings_.offset;
  std::vector<std::byte> head(4096);
  const ssize_t n = ::pread(fd_, head.data(), head.size(), static_cast<off_t>(position_));
  if (n < 0)
    return file_error(
        ErrorClass::io, position_,
        settings_.path + ": " + std::strerror(errno) + ": a pipe cannot be loaded, write it to a file first");
  head.resize(static_cast<std::size_t>(n));
  settings_.main.mapped_ram = announces_mapped_ram(head);
  settings_.main.multifd_channels = 0;  // also for snapshots written with multifd: the file is the same
  if (settings_.main.mapped_ram) {
    reader_ = std::make_unique<PageReader>(settings_.path, settings_.readers, settings_.cpus, kernels_);
    if (const std::string problem = reader_->open(); !problem.empty())
      return file_error(ErrorClass::io, 0, problem);
  }
  channel_ = std::make_unique<MainChannel>(settings_.main, static_cast<MainEvents&>(*this), blocks_.list(),
                                           barrier_, compress_, kernels_);
  return {};
}

StreamError FileLoader::feed(const std::function<bool(uint64_t)>& turn) {
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(kReadBytes);
  Bytes rest;
  for (;;) {
    if (turn(position_)) {
      stop_.store(true);
      return cancelled();
    }
    const uint32_t work = destination_.do_work(settings_.now_ns());
    switch (destination_.verdict()) {
      case Verdict::accepted:
        return {};  // it takes nothing more: what follows in the file, or on the disk, is not the stream's
      case Verdict::refused:
        return destination_.error();
      case Verdict::pending:
        break;
    }
    if (!channel_->ready()) {
      // The destination is slow: its bytes go out in this very loop.
      if (work == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
      continue;
    }
    if (rest.empty()) {
      const ssize_t n = ::pread(fd_, buffer.get(), kReadBytes, static_cast<off_t>(position_));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return file_error(ErrorClass::io, position_, settings_.path + ": " + std::strerror(errno));
      if (n == 0) return channel_->end_of_stream();
      if (moments_.first_byte == 0) moments_.first_byte = settings_.now_ns();
      position_ += static_cast<uint64_t>(n);
      bytes_read_ += static_cast<uint64_t>(n);
      rest = Bytes{buffer.get(), static_cast<std::size_t>(n)};
    }
    const ParseResult result = channel_->parse(rest);
    if (result.status == ParseStatus::failed) return channel_->error();
    rest = rest.subspan(result.consumed);
    if (const auto wanted = channel_->file_position_wanted()) {
      position_ = *wanted;
      rest = {};
      channel_->file_position_reached();
    }
  }
}

StreamError FileLoader::await_verdict(const std::function<bool(uint64_t)>& turn) {
  moments_.last_byte = settings_.now_ns();
  destination_.source_ended();
  for (;;) {
    const uint32_t work = destination_.do_work(settings_.now_ns());
    switch (destination_.verdict()) {
      case Verdict::accepted:
        return {};
      case Verdict::refused:
        return destination_.error();
      case Verdict::pending:
        break;
    }
    if (turn(position_)) return cancelled();
    if (work == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

StreamError FileLoader::cancelled() const {
  return file_error(ErrorClass::cancelled, position_, "ended by a signal before the file was loaded");
}

StreamError FileLoader::on_configuration(const Configuration& configuration) {
  machine_ = configuration.machine;
  return next().on_configuration(configuration);
}

StreamError FileLoader::on_ram_start(const SectionHeader& section, std::span<const BlockEntry> entries) {
  if (StreamError error = blocks_.resolve(entries)) return error;
  moments_.blocks_known = settings_.now_ns();
  // First: the destination may want other page targets.
  if (StreamError error = next().on_ram_start(section, entries)) return error;
  return reader_ == nullptr ? StreamError{} : reader_->load(blocks_.list(), entries, stop_);
}

void FileLoader::on_ram_complete() noexcept {
  moments_.ram_complete = settings_.now_ns();
  next().on_ram_complete();
}

}  // namespace migrx

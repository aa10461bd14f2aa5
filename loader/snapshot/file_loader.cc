#include "loader/snapshot/file_loader.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

namespace migrx {
namespace {

constexpr std::size_t kReadBytes = 1 << 20;

StreamError file_error(ErrorClass error_class, uint64_t position, const char* field,
                       const std::string& text) {
  StreamError error = make_error(error_class, position, field, "%s", text.c_str());
  error.channel = ChannelName::main();
  return error;
}

std::string seconds_text(uint64_t ns) {
  return std::to_string(ns / 1'000'000'000) + " s";
}

FileLoadSettings of_file(FileLoadSettings settings, bool mapped_ram) {
  settings.main.mapped_ram = mapped_ram;
  settings.main.multifd_channels = 0;  // also for snapshots written with multifd: the file is the same
  return settings;
}

// Between two looks at a destination or a pipe that has nothing to do for us.
constexpr std::chrono::microseconds kPauseMin{100};
constexpr std::chrono::microseconds kPauseMax{2000};

}  // namespace

FileLoader::FileLoader(FileLoadSettings settings, SnapshotInput& input, BlockTable& blocks,
                       Destination& destination, const PageKernels& kernels, CompressJobs& compress)
    : ForwardingEvents(destination.events()),
      settings_(of_file(std::move(settings), input.mapped_ram())),
      input_(input),
      blocks_(blocks),
      destination_(destination),
      reader_(input.mapped_ram() ? std::make_unique<PageReader>(input.fd(), input.name(), settings_.readers,
                                                                settings_.cpus, kernels)
                                 : nullptr),
      channel_(settings_.main, static_cast<MainEvents&>(*this), blocks_.list(), barrier_, compress, kernels) {
}

FileLoader::~FileLoader() = default;

StreamError FileLoader::run(const std::function<bool(uint64_t)>& turn) {
  turn_ = &turn;
  StreamError error = feed();
  if (!error) error = await_verdict();
  if (error) destination_.abandon();
  turn_ = nullptr;
  return error;
}

StreamError FileLoader::feed() {
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(kReadBytes);
  Bytes rest;
  uint64_t progress_ns = settings_.now_ns();
  std::chrono::microseconds pause = kPauseMin;
  for (;;) {
    if (take_turn()) return cancelled();
    const uint64_t now_ns = settings_.now_ns();
    const uint32_t work = destination_.do_work(now_ns);
    switch (destination_.verdict()) {
      case Verdict::accepted:
        return {};  // it takes nothing more: what follows in the file, or on the disk, is not the stream's
      case Verdict::refused:
        return destination_.error();
      case Verdict::pending:
        break;
    }
    const bool stalled = settings_.stall_ns > 0 && now_ns - progress_ns >= settings_.stall_ns;
    if (!channel_.ready()) {
      // The destination is slow: its bytes go out in this very loop.
      if (work > 0) {
        progress_ns = now_ns;
        pause = kPauseMin;
        continue;
      }
      if (stalled)
        return file_error(ErrorClass::timed_out, input_.position(), "session: destination",
                          "the destination took no byte for " + seconds_text(settings_.stall_ns) +
                              " although bytes wait for it: is the destination QEMU alive, and waiting with "
                              "-incoming? (--stall-timeout)");
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, kPauseMax);
      continue;
    }
    if (rest.empty()) {
      const SnapshotInput::Result result = input_.read({buffer.get(), kReadBytes});
      switch (result.status) {
        case SnapshotInput::Status::nothing_yet:
          if (stalled) return input_.silent(settings_.stall_ns);
          if (work == 0) input_.wait();
          continue;
        case SnapshotInput::Status::failed:
          return input_.failed(result.error);
        case SnapshotInput::Status::end:
          return channel_.end_of_stream();
        case SnapshotInput::Status::bytes:
          break;
      }
      if (moments_.first_byte == 0) moments_.first_byte = now_ns;
      bytes_read_ += result.bytes;
      rest = Bytes{buffer.get(), result.bytes};
    }
    const ParseResult result = channel_.parse(rest);
    if (result.status == ParseStatus::failed) return channel_.error();
    rest = rest.subspan(result.consumed);
    if (const auto wanted = channel_.file_position_wanted()) {
      input_.seek(*wanted);
      rest = {};
      channel_.file_position_reached();
    }
    progress_ns = settings_.now_ns();
    pause = kPauseMin;
  }
}

StreamError FileLoader::await_verdict() {
  moments_.last_byte = settings_.now_ns();
  destination_.source_ended();
  std::chrono::microseconds pause = kPauseMin;
  for (;;) {
    const uint64_t now_ns = settings_.now_ns();
    const uint32_t work = destination_.do_work(now_ns);
    switch (destination_.verdict()) {
      case Verdict::accepted:
        return {};
      case Verdict::refused:
        return destination_.error();
      case Verdict::pending:
        break;
    }
    if (take_turn()) return cancelled();
    const uint64_t since_ns = std::max(moments_.last_byte, destination_.last_sent_ns());
    if (settings_.destination_ns > 0 && now_ns >= since_ns + settings_.destination_ns)
      return file_error(
          ErrorClass::timed_out, input_.position(), "session: destination",
          seconds_text(settings_.destination_ns) +
              " after the last byte that it took the destination has not said that it has the guest "
              "(--destination-timeout): end that QEMU, it must not be continued");
    pause = work > 0 ? kPauseMin : std::min(2 * pause, kPauseMax);
    if (work == 0) std::this_thread::sleep_for(pause);
  }
}

// The channel is in the middle of its block list; the destination's verdict is looked at meanwhile, since
// pages can take minutes.
StreamError FileLoader::load_pages(std::span<const BlockEntry> entries) {
  // Pages are written by others than the parser. So they are held back here until the destination has proved
  // to wait: one that runs a guest on this memory never does.
  const uint64_t since_ns = settings_.now_ns();
  while (!destination_.proved_waiting()) {
    if (take_turn()) return cancelled();
    (void)destination_.do_work(settings_.now_ns());
    if (destination_.verdict() == Verdict::refused) return destination_.error();
    if (settings_.stall_ns > 0 && settings_.now_ns() - since_ns >= settings_.stall_ns)
      return file_error(ErrorClass::timed_out, input_.position(), "session: destination",
                        "the destination has not answered for " + seconds_text(settings_.stall_ns) +
                            ": is it a QEMU that waits with -incoming? (--stall-timeout)");
    std::this_thread::sleep_for(kPauseMin);
  }
  bool cancel = false;
  StreamError error = reader_->load(blocks_.list(), entries, [&] {
    cancel = take_turn();
    (void)destination_.do_work(settings_.now_ns());
    return cancel || destination_.verdict() == Verdict::refused;
  });
  if (cancel) return cancelled();
  return destination_.verdict() == Verdict::refused ? destination_.error() : error;
}

FileLoadProgress FileLoader::progress() const {
  FileLoadProgress progress;
  progress.position = input_.position();
  if (reader_ != nullptr) {
    progress.pages_done = reader_->pages_done();
    progress.pages_total = reader_->pages_total();
  }
  return progress;
}

StreamError FileLoader::cancelled() const {
  return file_error(ErrorClass::cancelled, input_.position(), "file",
                    "ended by a signal before the file was loaded");
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
  return reader_ == nullptr ? StreamError{} : load_pages(entries);
}

void FileLoader::on_ram_complete() noexcept {
  moments_.ram_complete = settings_.now_ns();
  next().on_ram_complete();
}

}  // namespace migrx

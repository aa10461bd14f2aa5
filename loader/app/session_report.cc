#include "loader/app/session_report.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>

#include "loader/app/watch/metric_table.h"

namespace migrx {
namespace {

void append(CounterList& to, const CounterList& more) {
  to.insert(to.end(), more.begin(), more.end());
}

const Channel* channel_of(const Session& session, const Handoff* connection) {
  for (const auto& channel : session.channels())
    if (&channel->connection() == connection) return channel.get();
  return nullptr;
}

const char* end_text(StreamEnd end) {
  switch (end) {
    case StreamEnd::none:
      return "";
    case StreamEnd::fin:
      return "fin";
    case StreamEnd::reset:
      return "reset";
    case StreamEnd::timed_out:
      return "timed-out";
    case StreamEnd::local:
      return "local";
  }
  return "";
}

struct PageCounts {
  uint64_t pages = 0;  // zero pages included
  uint64_t zero = 0;
};

PageCounts count_pages(const Session& session) {
  PageCounts sum;
  if (session.main_connection() != nullptr) {
    const MainCounters& c = session.main_channel().counters();
    sum.zero += c.zero_pages.read();
    sum.pages +=
        c.normal_pages.read() + c.zero_pages.read() + c.xbzrle_pages.read() + c.compressed_pages.read();
  }
  for (uint32_t i = 0; i + 1 < session.channels_expected(); ++i) {
    if (session.multifd_connection(i) == nullptr) continue;
    const MultifdCounters& c = session.multifd_channel(i).counters();
    const uint64_t zero = c.zero_pages_written.read() + c.zero_pages_skipped.read();
    sum.zero += zero;
    sum.pages += c.normal_pages.read() + zero;
  }
  return sum;
}

// A channel that gets nothing of a pass does not see it.
uint64_t rounds(const Session& session, uint64_t pages) {
  if (pages == 0) return 0;
  uint64_t most = 0;
  if (session.main_connection() != nullptr) {
    const MainCounters& main = session.main_channel().counters();
    most = main.begun_anew.read();
    if (main.per_round.read() != 0 && session.channels_expected() > 1)
      return std::max(most + 1, session.multifd_rounds());
  }
  for (uint32_t i = 0; i + 1 < session.channels_expected(); ++i)
    if (session.multifd_connection(i) != nullptr)
      most = std::max(most, session.multifd_channel(i).counters().begun_anew.read());
  return most + 1;
}

uint64_t wire_bytes(const Session& session) {
  uint64_t sum = 0;
  for (const auto& channel : session.channels()) sum += channel->connection().bytes_received.read();
  return sum;
}

CounterList channel_counters(const Session& session, const Handoff* connection) {
  CounterList out;
  if (const Channel* const served = channel_of(session, connection)) append(out, counters_of(*served));
  append(out, counters_of(*connection));
  return out;
}

}  // namespace

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void report_session(const Session& session, const SessionControl& control, const BlockTable& blocks,
                    uint64_t start_ns, const std::vector<int>& loader_cpus, Report& report) {
  const auto seconds = [start_ns](const std::atomic<uint64_t>& moment) {
    const uint64_t ns = moment.load(std::memory_order_acquire);
    return ns == 0 ? -1.0 : static_cast<double>(ns - start_ns) * 1e-9;
  };
  const SessionMoments& moments = session.moments();
  report.timeline.setup_s = seconds(moments.first_channel);
  report.timeline.precopy_s = seconds(moments.blocks_known);
  report.timeline.switchover_s = seconds(moments.switchover);
  report.timeline.ram_complete_s = seconds(moments.ram_complete);
  report.timeline.device_state_s = seconds(moments.last_tail);
  report.return_path = control.return_path_open();

  report.outcome = session.state() == SessionState::done ? "complete" : "failed";
  if (session.state() == SessionState::failed) {
    report.error = session.error();
    if (report.error.error_class == ErrorClass::cancelled) report.outcome = "cancelled";
  }
  if (const uint32_t surplus = session.admission().surplus(); surplus > 0)
    report.warnings.push_back(fmt::format(
        "{} multifd channel{} came from the source's address when all of --multifd-channels were here, and "
        "{} refused: another source used this port by mistake, or this one opens more channels (parameter "
        "multifd-channels there)",
        surplus, surplus == 1 ? "" : "s", surplus == 1 ? "was" : "were"));
  if (control.refused() > session.admission().surplus())
    report.warnings.push_back(std::to_string(control.refused() - session.admission().surplus()) +
                              " connections were refused: they were none of the source's channels, or said "
                              "nothing");
  if (control.source_unsure()) {
    report.outcome = "unsure";
    report.warnings.emplace_back(
        "the destination has the guest, and the source did not acknowledge that: ask the source "
        "(query-migrate). If it says completed, continue the destination; if it says failed, or its guest "
        "runs, end the destination");
  }
  if (const StreamError* const late = session.late_error(); late != nullptr)
    report.warnings.push_back(
        "after the end of RAM and of the device state, when no error could harm the guest any more: " +
        late->message());
  const bool colo = session.colo() != nullptr && session.colo()->enabled();  // takes the return path's place
  if (!report.return_path && !colo && report.timeline.precopy_s >= 0)
    report.warnings.emplace_back(
        "the source has return-path off: it believed it was done as soon as its sockets took the last byte; "
        "turn the "
        "capability return-path on");

  const auto add_channel = [&](const std::string& name, const Handoff* connection,
                               const CounterList& counters) {
    ChannelReport channel;
    channel.name = name;
    channel.peer = connection->peer.data();
    channel.poll_core = static_cast<int>(connection->poll_core);
    const int worker = control.worker_of(connection);
    if (worker >= 0 && static_cast<std::size_t>(worker) < loader_cpus.size())
      channel.loader_core = loader_cpus[static_cast<std::size_t>(worker)];
    if (const Channel* const served = channel_of(session, connection)) channel.end = end_text(served->end());
    append(channel.counters, channel_counters(session, connection));
    append(channel.counters, counters);
    report.channels.push_back(std::move(channel));
  };
  if (session.main_connection() != nullptr) {
    report.source_machine = session.source_machine();
    if (session.channels_expected() > 1)
      report.sync_mode = session.main_channel().flush_mode() == FlushMode::round     ? "per round"
                         : session.main_channel().flush_mode() == FlushMode::section ? "per section"
                                                                                     : "not known yet";
    add_channel("main", session.main_connection(), counters_of(session.main_channel().counters()));
  }
  for (uint32_t i = 0; i + 1 < session.channels_expected(); ++i)
    if (session.multifd_connection(i) != nullptr)
      add_channel(to_string(ChannelName{MultifdId{i}}), session.multifd_connection(i),
                  counters_of(session.multifd_channel(i).counters()));

  report.wire_bytes = wire_bytes(session);
  const PageCounts pages = count_pages(session);
  report.guest_bytes_loaded = pages.pages * kPageBytes;
  report.rounds = rounds(session, pages.pages);
  const double end_s = report.timeline.ram_complete_s;
  if (end_s > report.timeline.setup_s && report.timeline.setup_s >= 0) {
    const double duration = end_s - report.timeline.setup_s;
    report.throughput_wire_bytes_per_s = static_cast<double>(report.wire_bytes) / duration;
    report.throughput_guest_bytes_per_s = static_cast<double>(report.guest_bytes_loaded) / duration;
  }
  report_blocks(blocks, report);
}

void report_blocks(const BlockTable& blocks, Report& report) {
  for (std::size_t i = 0; i < blocks.list().size(); ++i) {
    const RamBlock& block = blocks.list()[i];
    BlockReport out;
    out.id = block.idstr();
    out.length = block.used_length();
    out.pages_written = block.pages_written();
    out.path = block.file_backed() ? blocks.path_of(block) : "";
    out.node = block.node().value();
    out.fresh = block.fresh();
    report.ram_bytes += block.used_length();
    report.blocks.push_back(std::move(out));
  }
}

void sample_channels(const Session& session, uint64_t start_ns, Report& report) {
  const auto seconds = [start_ns](const std::atomic<uint64_t>& moment) {
    const uint64_t ns = moment.load(std::memory_order_acquire);
    return ns == 0 ? -1.0 : static_cast<double>(ns - start_ns) * 1e-9;
  };
  const SessionMoments& moments = session.moments();
  report.timeline.setup_s = seconds(moments.first_channel);
  report.timeline.precopy_s = seconds(moments.blocks_known);
  report.timeline.switchover_s = seconds(moments.switchover);
  report.timeline.ram_complete_s = seconds(moments.ram_complete);
  report.timeline.device_state_s = seconds(moments.last_tail);
  const auto add_channel = [&](std::string name, const Handoff* connection, const CounterList& counters) {
    ChannelReport channel;
    channel.name = std::move(name);
    channel.counters = channel_counters(session, connection);
    append(channel.counters, counters);
    report.channels.push_back(std::move(channel));
  };
  if (session.main_connection() != nullptr)
    add_channel("main", session.main_connection(), counters_of(session.main_channel().counters()));
  for (uint32_t i = 0; i + 1 < session.channels_expected(); ++i) {
    // Before its init packet a channel has no name that would last.
    if (session.multifd_connection(i) == nullptr || !session.multifd_channel(i).id()) continue;
    add_channel(to_string(ChannelName{MultifdId{i}}), session.multifd_connection(i),
                counters_of(session.multifd_channel(i).counters()));
  }
}

ProgressSample sample_progress(const Session& session, const BlockTable& blocks, double now_s) {
  ProgressSample sample;
  sample.now_s = now_s;
  sample.phase = to_string(session.state());
  sample.channels_expected = session.channels_expected();
  sample.channels = session.identified();
  sample.wire_bytes = wire_bytes(session);
  const PageCounts pages = count_pages(session);
  sample.pages = pages.pages;
  sample.zero_pages = pages.zero;
  if (session.main_connection() != nullptr) sample.epochs = session.main_channel().counters().markers.read();
  sample.rounds = rounds(session, pages.pages);
  // The block list is written by main's worker and constant from this moment on.
  if (session.moments().blocks_known.load(std::memory_order_acquire) != 0) {
    for (std::size_t i = 0; i < blocks.list().size(); ++i) sample.ram_pages += blocks.list()[i].pages();
    // The first pass sends each page once; until something comes twice, pages seen is how far it got.
    sample.first_pass_pages = std::min(pages.pages, sample.ram_pages);
  }
  return sample;
}

}  // namespace migrx

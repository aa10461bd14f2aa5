#include "loader/app/watch/metric_table.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <map>

namespace migrx {
namespace {

constexpr auto kCounter = MetricKind::counter;
constexpr auto kGauge = MetricKind::gauge;
constexpr auto kOne = MetricUnit::one;
constexpr auto kBytes = MetricUnit::bytes;
constexpr auto kSeconds = MetricUnit::seconds;
constexpr auto kRatio = MetricUnit::ratio;
constexpr auto kFlag = MetricUnit::flag;

// `read` gets what has the counter; lambdas without captures, so that a table is constant.
template <class Source, class Value = uint64_t>
struct Row {
  const char* report_name;
  const char* metric;
  MetricUnit unit;
  MetricKind kind;
  const char* help;
  Value (*read)(const Source&);
  const char* moment = "";
};

constexpr Row<Channel> kChannelRows[] = {
    {"slices", "migrx_channel_slices_total", kOne, kCounter,
     "Pieces of the stream given to the channel's parser.", [](const Channel& c) { return c.slices.read(); }},
    {"parked_turns", "migrx_channel_parked_turns_total", kOne, kCounter,
     "Turns in which the channel waited for the others, at the flush barrier or to come.",
     [](const Channel& c) { return c.parked_turns.read(); }},
    {"owed_turns", "migrx_channel_owed_turns_total", kOne, kCounter,
     "Turns skipped because earlier turns wrote more to memory than the bytes that came.",
     [](const Channel& c) { return c.owed_turns.read(); }},
    {"ring_depth_max", "migrx_channel_ring_depth_max", kOne, kGauge,
     "Most pieces of the stream seen waiting for the loader.",
     [](const Channel& c) { return c.ring_depth_max.read(); }},
};

constexpr Row<Handoff> kConnectionRows[] = {
    {"bytes", "migrx_channel_bytes_total", kBytes, kCounter, "Bytes of the stream received in order.",
     [](const Handoff& c) { return c.bytes_received.read(); }},
    {"segments", "migrx_channel_segments_total", kOne, kCounter, "TCP segments received.",
     [](const Handoff& c) { return c.segments.read(); }},
    {"out_of_order", "migrx_channel_out_of_order_segments_total", kOne, kCounter,
     "Segments that arrived beyond a hole in the stream.",
     [](const Handoff& c) { return c.out_of_order.read(); }},
    {"duplicate_segments", "migrx_channel_duplicate_segments_total", kOne, kCounter,
     "Segments that brought nothing new.", [](const Handoff& c) { return c.duplicate_segments.read(); }},
    {"over_quota", "migrx_channel_over_quota_segments_total", kOne, kCounter,
     "Segments dropped because the channel held all of its packet buffers.",
     [](const Handoff& c) { return c.over_quota.read(); }},
    {"acks_sent", "migrx_channel_acks_sent_total", kOne, kCounter, "ACKs sent.",
     [](const Handoff& c) { return c.acks_sent.read(); }},
    {"zero_window", "migrx_channel_zero_windows_total", kOne, kCounter,
     "Times the window closed because the loader was slower than the source.",
     [](const Handoff& c) { return c.zero_window.read(); }},
};

constexpr Row<MainCounters> kMainRows[] = {
    {"normal_pages", "migrx_main_normal_pages_total", kOne, kCounter,
     "Pages whose bytes came on the main channel.",
     [](const MainCounters& c) { return c.normal_pages.read(); }},
    {"zero_pages", "migrx_main_zero_pages_total", kOne, kCounter,
     "Pages announced as zero on the main channel.",
     [](const MainCounters& c) { return c.zero_pages.read(); }},
    {"zero_pages_untouched", "migrx_main_zero_pages_untouched_total", kOne, kCounter,
     "Of the zero pages, those that already were zero.",
     [](const MainCounters& c) { return c.zero_pages_untouched.read(); }},
    {"xbzrle_pages", "migrx_main_xbzrle_pages_total", kOne, kCounter, "Pages that came as XBZRLE patches.",
     [](const MainCounters& c) { return c.xbzrle_pages.read(); }},
    {"xbzrle_bytes", "migrx_main_xbzrle_bytes_total", kBytes, kCounter, "Bytes of XBZRLE patches.",
     [](const MainCounters& c) { return c.xbzrle_bytes.read(); }},
    {"compressed_pages", "migrx_main_compressed_pages_total", kOne, kCounter,
     "Pages that came compressed on the main channel.",
     [](const MainCounters& c) { return c.compressed_pages.read(); }},
    {"compressed_bytes", "migrx_main_compressed_bytes_total", kBytes, kCounter,
     "Bytes of compressed pages on the main channel.",
     [](const MainCounters& c) { return c.compressed_bytes.read(); }},
    {"ram_sections", "migrx_main_ram_sections_total", kOne, kCounter, "Sections of RAM on the main channel.",
     [](const MainCounters& c) { return c.ram_sections.read(); }},
    {"other_sections", "migrx_main_other_sections_total", kOne, kCounter,
     "Sections of other devices on the main channel.",
     [](const MainCounters& c) { return c.other_sections.read(); }},
    {"markers", "migrx_main_markers_total", kOne, kCounter, "Flush markers met: epochs closed.",
     [](const MainCounters& c) { return c.markers.read(); }},
    {"begun_anew", "migrx_main_begun_anew_total", kOne, kCounter,
     "Passes over RAM after the first, as the main channel sees them.",
     [](const MainCounters& c) { return c.begun_anew.read(); }},
    {"verbatim_bytes", "migrx_main_verbatim_bytes_total", kBytes, kCounter,
     "Bytes before the end of RAM passed to the destination as they came.",
     [](const MainCounters& c) { return c.verbatim_bytes.read(); }},
    {"tail_bytes", "migrx_main_device_state_bytes_total", kBytes, kCounter,
     "Bytes of device state passed to the destination.",
     [](const MainCounters& c) { return c.tail_bytes.read(); }},
};

constexpr Row<MultifdCounters> kMultifdRows[] = {
    {"packets", "migrx_multifd_packets_total", kOne, kCounter, "Multifd packets.",
     [](const MultifdCounters& c) { return c.packets.read(); }},
    {"syncs", "migrx_multifd_syncs_total", kOne, kCounter, "Multifd packets with the SYNC flag.",
     [](const MultifdCounters& c) { return c.syncs.read(); }},
    {"normal_pages", "migrx_multifd_normal_pages_total", kOne, kCounter,
     "Pages whose bytes came on a multifd channel.",
     [](const MultifdCounters& c) { return c.normal_pages.read(); }},
    {"zero_pages", "migrx_multifd_zero_pages_total", kOne, kCounter,
     "Pages announced as zero on a multifd channel.",
     [](const MultifdCounters& c) { return c.zero_pages_written.read() + c.zero_pages_skipped.read(); }},
    {"zero_pages_untouched", "migrx_multifd_zero_pages_untouched_total", kOne, kCounter,
     "Of the zero pages, those that already were zero.",
     [](const MultifdCounters& c) { return c.zero_pages_skipped.read(); }},
    {"begun_anew", "migrx_multifd_begun_anew_total", kOne, kCounter,
     "Passes over RAM after the first, as the channel sees them.",
     [](const MultifdCounters& c) { return c.begun_anew.read(); }},
    {"payload_bytes", "migrx_multifd_payload_bytes_total", kBytes, kCounter,
     "Payload bytes of multifd packets.", [](const MultifdCounters& c) { return c.payload_bytes.read(); }},
    {"routed_bytes", "migrx_multifd_routed_bytes_total", kBytes, kCounter,
     "Payload bytes that another memory node's worker copied.",
     [](const MultifdCounters& c) { return c.routed_bytes.read(); }},
};

constexpr Row<PageReader> kSnapshotRows[] = {
    {"mapped_ram_pages", "migrx_snapshot_pages_total", kOne, kCounter,
     "Pages read from a mapped-ram snapshot.",
     [](const PageReader& r) { return r.counters().pages_read.load(std::memory_order_relaxed); }},
    {"mapped_ram_zero_pages", "migrx_snapshot_zero_pages_total", kOne, kCounter,
     "Pages that a mapped-ram snapshot has no bytes for.",
     [](const PageReader& r) { return r.counters().zero_pages.load(std::memory_order_relaxed); }},
    {"mapped_ram_zero_pages_untouched", "migrx_snapshot_zero_pages_untouched_total", kOne, kCounter,
     "Of the zero pages, those that already were zero.",
     [](const PageReader& r) { return r.counters().zero_pages_untouched.load(std::memory_order_relaxed); }},
    {"mapped_ram_reads", "migrx_snapshot_reads_total", kOne, kCounter,
     "Read system calls on a mapped-ram snapshot.",
     [](const PageReader& r) { return r.counters().reads.load(std::memory_order_relaxed); }},
    {"reader_threads", "migrx_snapshot_reader_threads", kOne, kGauge,
     "Threads that read a mapped-ram snapshot.",
     [](const PageReader& r) { return static_cast<uint64_t>(r.threads()); }},
    {"direct_io", "migrx_snapshot_direct_io", kFlag, kGauge,
     "Whether the snapshot is read past the page cache, 1 or 0.",
     [](const PageReader& r) -> uint64_t { return r.direct_io() ? 1 : 0; }},
};

constexpr Row<AgentThreadCounters> kCoreRows[] = {
    {"turns", "migrx_core_turns_total", kOne, kCounter, "Turns of the thread on this CPU.",
     [](const AgentThreadCounters& c) { return c.turns.read(); }},
    {"busy_turns", "migrx_core_busy_turns_total", kOne, kCounter, "Turns that found something to do.",
     [](const AgentThreadCounters& c) { return c.busy_turns.read(); }},
};

constexpr Row<CoreReport, double> kCoreTimeRows[] = {
    {"busy_s", "migrx_core_busy_seconds_total", kSeconds, kCounter,
     "Time in turns that found something to do.", [](const CoreReport& c) { return c.busy_s; }},
    {"idle_s", "migrx_core_idle_seconds_total", kSeconds, kCounter,
     "Time in turns that found nothing, pauses included.", [](const CoreReport& c) { return c.idle_s; }},
    {"longest_turn_us", "migrx_core_longest_turn_seconds", kSeconds, kGauge,
     "Longest turn with work since the start.", [](const CoreReport& c) { return c.longest_turn_us * 1e-6; }},
    {"stalls", "migrx_core_stalls_total", kOne, kCounter,
     "Turns of more than 250 us; the report has the last ones.",
     [](const CoreReport& c) { return static_cast<double>(c.stalls); }},
};

constexpr Row<PortTotals> kPortRows[] = {
    {"port.rx_packets", "migrx_port_rx_packets_total", kOne, kCounter, "Frames that the ports received.",
     [](const PortTotals& p) { return p.stats.rx_packets; }},
    {"port.rx_bytes", "migrx_port_rx_bytes_total", kBytes, kCounter,
     "Bytes of frames that the ports received.", [](const PortTotals& p) { return p.stats.rx_bytes; }},
    {"port.rx_missed", "migrx_port_rx_missed_total", kOne, kCounter,
     "Frames that the ports dropped because a poll core was too slow.",
     [](const PortTotals& p) { return p.stats.rx_missed; }},
    {"port.rx_errors", "migrx_port_rx_errors_total", kOne, kCounter, "Frames that the ports refused.",
     [](const PortTotals& p) { return p.stats.rx_errors; }},
    {"port.rx_no_buffer", "migrx_port_rx_no_buffer_total", kOne, kCounter,
     "Times the ports found no packet buffer.", [](const PortTotals& p) { return p.stats.rx_no_buffer; }},
    {"port.tx_packets", "migrx_port_tx_packets_total", kOne, kCounter, "Frames that the ports sent.",
     [](const PortTotals& p) { return p.stats.tx_packets; }},
    {"port.tx_errors", "migrx_port_tx_errors_total", kOne, kCounter, "Frames that the ports could not send.",
     [](const PortTotals& p) { return p.stats.tx_errors; }},
    {"port.link_changes", "migrx_port_link_changes_total", kOne, kCounter,
     "Times that a port's link came or went.", [](const PortTotals& p) { return p.link_changes; }},
};

constexpr Row<BufferTotals> kMemoryRows[] = {
    {"rx_buffers", "migrx_rx_buffers", kOne, kGauge, "Packet buffers of all poll cores.",
     [](const BufferTotals& b) { return b.buffers; }},
    {"rx_buffers_available", "migrx_rx_buffers_available", kOne, kGauge, "Packet buffers that are free now.",
     [](const BufferTotals& b) { return b.available; }},
    {"hugepage_pools", "migrx_hugepage_pools", kFlag, kGauge,
     "Whether packet buffers lie in hugepages, 1 or 0.",
     [](const BufferTotals& b) -> uint64_t { return b.hugepages ? 1 : 0; }},
};

constexpr Row<PostcopyNumbers> kPostcopyRows[] = {
    {"discarded_ranges", "migrx_postcopy_discarded_ranges_total", kOne, kCounter,
     "Ranges of pages that the source named at the switch: they were left behind.",
     [](const PostcopyNumbers& p) { return p.discarded_ranges; }},
    {"discarded_pages", "migrx_postcopy_discarded_pages_total", kOne, kCounter,
     "Pages of 4 KiB in those ranges: they come after the guest.",
     [](const PostcopyNumbers& p) { return p.discarded_pages; }},
    {"requests", "migrx_postcopy_requests_total", kOne, kCounter,
     "Times that the guest at the destination waited for a page and asked for it.",
     [](const PostcopyNumbers& p) { return p.requests; }},
    {"requested_bytes", "migrx_postcopy_requested_bytes_total", kBytes, kCounter,
     "Bytes of the pages that were asked for.", [](const PostcopyNumbers& p) { return p.requested_bytes; }},
    {"urgent_bytes", "migrx_postcopy_urgent_bytes_total", kBytes, kCounter,
     "Bytes of the stream that came on the source's channel of postcopy-preempt.",
     [](const PostcopyNumbers& p) { return p.urgent_bytes; }},
    {"pauses", "migrx_postcopy_pauses_total", kOne, kCounter,
     "Times that a connection broke in postcopy, so that both QEMUs waited for it to be made anew.",
     [](const PostcopyNumbers& p) { return p.pauses; }},
};

constexpr Row<ColoSecondary> kColoRows[] = {
    {"enabled", "migrx_colo_enabled", kFlag, kGauge, "Whether the source has begun with COLO, 1 or 0.",
     [](const ColoSecondary& c) -> uint64_t { return c.enabled() ? 1 : 0; }},
    {"checkpoints", "migrx_colo_checkpoints_total", kOne, kCounter, "Checkpoints finished.",
     [](const ColoSecondary& c) { return c.checkpoints.read(); }},
    {"failed_over", "migrx_colo_failed_over", kFlag, kGauge,
     "Whether the guest goes on here after a failover, 1 or 0.",
     [](const ColoSecondary& c) -> uint64_t {
       return c.stage() == ColoSecondary::Stage::failed_over ? 1 : 0;
     }},
    {"source_lost", "migrx_colo_source_lost", kFlag, kGauge, "Whether the source is lost, 1 or 0.",
     [](const ColoSecondary& c) -> uint64_t { return c.source_lost() ? 1 : 0; }},
    {"cache_bytes", "migrx_colo_cache_bytes", kBytes, kGauge, "Bytes of the cache of the guest's RAM.",
     [](const ColoSecondary& c) { return c.cache().bytes(); }},
    {"pages_to_cache", "migrx_colo_pages_to_cache_total", kOne, kCounter,
     "Pages written to the cache of the guest's RAM.",
     [](const ColoSecondary& c) { return c.cache().pages_to_cache.read(); }},
    {"pages_to_ram", "migrx_colo_pages_to_ram_total", kOne, kCounter,
     "Pages copied from the cache to the guest's RAM.",
     [](const ColoSecondary& c) { return c.cache().pages_to_ram.read(); }},
};

constexpr Row<Report, double> kProcessRows[] = {
    {"started_unix_s", "migrx_start_time_seconds", kSeconds, kGauge,
     "When the command started, in seconds since 1970.", [](const Report& r) { return r.started_unix_s; }},
    {"cpu_s", "migrx_process_cpu_seconds_total", kSeconds, kCounter,
     "CPU time of the process, polling included.", [](const Report& r) { return r.cpu_s; }},
};

constexpr Row<DaemonNumbers> kDaemonRows[] = {
    {"budget.sessions", "migrx_serve_sessions", kOne, kGauge, "Migrations that were let in and are not over.",
     [](const DaemonNumbers& n) -> uint64_t { return n.promised.sessions; }},
    {"migrations.waiting", "migrx_serve_sessions_waiting", kOne, kGauge, "Migrations that wait for room.",
     [](const DaemonNumbers& n) -> uint64_t { return n.waiting; }},
    {"budget.sessions-max", "migrx_serve_sessions_max", kOne, kGauge, "Migrations that are let in at a time.",
     [](const DaemonNumbers& n) -> uint64_t { return n.whole.sessions; }},
    {"budget.connections", "migrx_serve_connections", kOne, kGauge,
     "Connections promised to the migrations that were let in.",
     [](const DaemonNumbers& n) { return n.promised.places; }},
    {"budget.connections-max", "migrx_serve_connections_max", kOne, kGauge,
     "Connections that can be promised, packet buffers and all.",
     [](const DaemonNumbers& n) { return n.whole.places; }},
    {"budget.private-ram", "migrx_serve_private_ram_bytes", kBytes, kGauge,
     "Memory for blocks without a file, promised to the migrations that were let in.",
     [](const DaemonNumbers& n) { return n.promised.private_ram_bytes; }},
    {"budget.private-ram-total", "migrx_serve_private_ram_max_bytes", kBytes, kGauge,
     "Memory for blocks without a file that can be promised.",
     [](const DaemonNumbers& n) { return n.whole.private_ram_bytes; }},
    {"migrations.completed", "migrx_serve_completed_total", kOne, kCounter, "Migrations whose guest is here.",
     [](const DaemonNumbers& n) { return n.completed; }},
    {"migrations.unsure", "migrx_serve_unsure_total", kOne, kCounter,
     "Migrations whose guest is here, but whose source may not know (exit status 3).",
     [](const DaemonNumbers& n) { return n.unsure; }},
    {"migrations.failed", "migrx_serve_failed_total", kOne, kCounter,
     "Migrations that failed or were cancelled: the guest stayed at its source.",
     [](const DaemonNumbers& n) { return n.failed; }},
    {"migrations.refused", "migrx_serve_refused_total", kOne, kCounter,
     "Migrations that were asked for and refused before anything of the host was touched.",
     [](const DaemonNumbers& n) { return n.refused; }},
    {"peers-to-be-told", "migrx_serve_peers_to_be_told", kOne, kGauge,
     "Peers of lost connections that have not been reset yet.",
     [](const DaemonNumbers& n) { return n.peers_to_be_told; }},
    {"draining", "migrx_serve_draining", kFlag, kGauge,
     "Whether the daemon ends once its migrations are over, 1 or 0.",
     [](const DaemonNumbers& n) -> uint64_t { return n.draining ? 1 : 0; }},
};

using S = SessionNumbers;
constexpr Row<S, double> kSessionRows[] = {
    {"wire_bytes", "migrx_session_wire_bytes_total", kBytes, kCounter,
     "Stream bytes received on all channels.",
     [](const S& s) { return static_cast<double>(s.progress.wire_bytes); }},
    {"guest_bytes_loaded", "migrx_session_guest_bytes_total", kBytes, kCounter,
     "Guest bytes applied in all rounds, zero pages included.",
     [](const S& s) { return static_cast<double>(s.progress.pages) * 4096; }},
    {"", "migrx_session_pages_total", kOne, kCounter,
     "Guest pages applied in all rounds, zero pages included.",
     [](const S& s) { return static_cast<double>(s.progress.pages); }},
    {"", "migrx_session_zero_pages_total", kOne, kCounter, "Of those, pages that came as zero.",
     [](const S& s) { return static_cast<double>(s.progress.zero_pages); }},
    {"rounds", "migrx_session_rounds_total", kOne, kCounter,
     "Passes over the guest's RAM that the source has begun.",
     [](const S& s) { return static_cast<double>(s.progress.rounds); }},
    {"", "migrx_session_epochs_total", kOne, kCounter,
     "Epochs closed: rounds, or sections with sources that synchronise at each.",
     [](const S& s) { return static_cast<double>(s.progress.epochs); }},
    {"ram_bytes", "migrx_session_ram_bytes", kBytes, kGauge,
     "RAM of the guest; 0 until the source has sent its list of blocks.",
     [](const S& s) { return static_cast<double>(s.progress.ram_pages) * 4096; }},
    {"", "migrx_session_first_pass_ratio", kRatio, kGauge,
     "How much of the guest's RAM has come at least once, 0 to 1.",
     [](const S& s) {
       return s.progress.ram_pages == 0 ? 0
                                        : std::min(1.0, static_cast<double>(s.progress.first_pass_pages) /
                                                            static_cast<double>(s.progress.ram_pages));
     }},
    {"", "migrx_session_channels", kOne, kGauge, "Channels that have said what they are.",
     [](const S& s) { return static_cast<double>(s.progress.channels); }},
    {"", "migrx_session_channels_expected", kOne, kGauge, "Channels that the session waits for.",
     [](const S& s) { return static_cast<double>(s.progress.channels_expected); }},
    {"", "migrx_warnings_total", kOne, kCounter, "Warnings given so far.",
     [](const S& s) { return static_cast<double>(s.report.warnings.size()); }},
    {"tls.handshakes", "migrx_tls_handshakes_total", kOne, kCounter, "TLS handshakes finished.",
     [](const S& s) { return static_cast<double>(s.report.tls.handshakes); }},
    {"tls.reloads", "migrx_tls_reloads_total", kOne, kCounter, "Times that renewed credentials were loaded.",
     [](const S& s) { return static_cast<double>(s.report.tls.reloads); }},
    {"tls.records", "migrx_tls_records_total", kOne, kCounter, "TLS records opened.",
     [](const S& s) { return static_cast<double>(s.report.tls_records.records); }},
    {"tls.straight_pages", "migrx_tls_straight_pages_total", kOne, kCounter,
     "Pages whose TLS records were opened straight into guest RAM.",
     [](const S& s) { return static_cast<double>(s.report.tls_records.straight_pages); }},
    {"tls.key_updates", "migrx_tls_key_updates_total", kOne, kCounter,
     "Times that a source changed its key, as it does after 2^24 records.",
     [](const S& s) { return static_cast<double>(s.report.tls_records.key_updates); }},
    {"handoff_tls.handshakes", "migrx_handoff_tls_handshakes_total", kOne, kCounter,
     "TLS handshakes finished with the destination QEMU.",
     [](const S& s) { return static_cast<double>(s.report.handoff_tls.handshakes); }},
    {"timeline.prefault_s", "migrx_session_prefault_seconds", kSeconds, kGauge,
     "How long guest memory took to be made ready.", [](const S& s) { return s.report.timeline.prefault_s; }},
#define MOMENT(name)                                                          \
  {                                                                           \
    "timeline." #name "_s", "migrx_session_moment_seconds", kSeconds, kGauge, \
        "When a phase began, in seconds after the command's start.",          \
        [](const S& s) { return s.report.timeline.name##_s; }, #name          \
  }
    MOMENT(ready),
    MOMENT(setup),
    MOMENT(precopy),
    MOMENT(switchover),
    MOMENT(ram_complete),
    MOMENT(device_state),
    MOMENT(handed_on),
    MOMENT(done),
#undef MOMENT
};

template <class Rows>
void add_rows(std::vector<MetricInfo>& out, MetricScope scope, const Rows& rows) {
  for (const auto& row : rows)
    out.push_back({scope, row.report_name, row.metric, row.unit, row.kind, row.help, row.moment});
}

template <class Table>
void add_fates(std::vector<MetricInfo>& out, const char* group, const Table& table) {
  for (const CounterInfo& counter : table) {
    MetricInfo info;
    info.scope = MetricScope::dataplane;
    info.report_name = std::string(group) + "." + std::string(counter.name);
    info.metric = "migrx_" + std::string(group) + "_" + std::string(counter.name) + "_total";
    info.unit = counter.name.ends_with("_bytes") ? kBytes : kOne;
    info.help = std::string(counter.sentence) + ".";
    info.help.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(info.help.front())));
    out.push_back(std::move(info));
  }
}

template <class Source, std::size_t kCount>
CounterList read_all(const Row<Source> (&rows)[kCount], const Source& source) {
  CounterList out;
  out.reserve(kCount);
  for (const Row<Source>& row : rows) out.emplace_back(row.report_name, row.read(source));
  return out;
}

// The rows of one table stand together in metric_table().
template <class Source, std::size_t kCount>
std::vector<SessionValue> read_values(MetricScope scope, const Row<Source, double> (&rows)[kCount],
                                      const Source& source) {
  const auto& table = metric_table();
  auto info = std::find_if(table.begin(), table.end(), [&](const MetricInfo& candidate) {
    return candidate.scope == scope && candidate.metric == rows[0].metric;
  });
  std::vector<SessionValue> out;
  for (const Row<Source, double>& row : rows) {
    const double value = row.read(source);
    if (row.unit != kSeconds || value >= 0) out.push_back({&*info, value});
    ++info;
  }
  return out;
}

template <class Enum, class Table, class Block>
void add_sums(CounterList& out, const char* group, const Table& table,
              const std::vector<const PollCore*>& cores, const Block& block_of) {
  for (std::size_t i = 0; i < table.size(); ++i) {
    uint64_t sum = 0;
    for (const PollCore* const core : cores) sum += block_of(*core).read(static_cast<Enum>(i));
    out.emplace_back(std::string(group) + "." + std::string(table[i].name), sum);
  }
}

}  // namespace

const char* to_string(MetricScope scope) noexcept {
  switch (scope) {
    case MetricScope::process:
      return "process";
    case MetricScope::session:
      return "session";
    case MetricScope::main_channel:
      return "main channel";
    case MetricScope::channel:
      return "each channel";
    case MetricScope::multifd_channel:
      return "multifd channel";
    case MetricScope::snapshot:
      return "snapshot";
    case MetricScope::core:
      return "core";
    case MetricScope::dataplane:
      return "dataplane";
    case MetricScope::postcopy:
      return "postcopy";
    case MetricScope::colo:
      return "colo";
    case MetricScope::memory:
      return "memory";
    case MetricScope::daemon:
      return "daemon";
  }
  return "";
}

const char* to_string(MetricUnit unit) noexcept {
  switch (unit) {
    case MetricUnit::one:
      return "";
    case MetricUnit::bytes:
      return "bytes";
    case MetricUnit::seconds:
      return "seconds";
    case MetricUnit::ratio:
      return "ratio";
    case MetricUnit::flag:
      return "0 or 1";
  }
  return "";
}

const std::vector<MetricInfo>& metric_table() {
  static const std::vector<MetricInfo> table = [] {
    std::vector<MetricInfo> all;
    add_rows(all, MetricScope::process, kProcessRows);
    add_rows(all, MetricScope::session, kSessionRows);
    add_rows(all, MetricScope::channel, kChannelRows);
    add_rows(all, MetricScope::channel, kConnectionRows);
    add_rows(all, MetricScope::main_channel, kMainRows);
    add_rows(all, MetricScope::multifd_channel, kMultifdRows);
    add_rows(all, MetricScope::snapshot, kSnapshotRows);
    add_rows(all, MetricScope::core, kCoreTimeRows);
    add_rows(all, MetricScope::core, kCoreRows);
    add_rows(all, MetricScope::dataplane, kPortRows);
    add_fates(all, "poll", kPollCounterInfo);
    add_fates(all, "wire", kWireCounterInfo);
    add_fates(all, "tcp", kTcpCounterInfo);
    add_rows(all, MetricScope::postcopy, kPostcopyRows);
    add_rows(all, MetricScope::colo, kColoRows);
    add_rows(all, MetricScope::memory, kMemoryRows);
    add_rows(all, MetricScope::daemon, kDaemonRows);
    return all;
  }();
  return table;
}

const MetricInfo* find_metric(MetricScope scope, std::string_view report_name) {
  static const std::map<std::pair<MetricScope, std::string_view>, const MetricInfo*> index = [] {
    std::map<std::pair<MetricScope, std::string_view>, const MetricInfo*> all;
    for (const MetricInfo& info : metric_table())
      if (!info.report_name.empty())
        all.emplace(std::pair{info.scope, std::string_view(info.report_name)}, &info);
    return all;
  }();
  const auto at = index.find({scope, report_name});
  return at == index.end() ? nullptr : at->second;
}

CounterList counters_of(const MainCounters& counters) {
  return read_all(kMainRows, counters);
}
CounterList counters_of(const Channel& channel) {
  return read_all(kChannelRows, channel);
}
CounterList counters_of(const Handoff& connection) {
  return read_all(kConnectionRows, connection);
}
CounterList counters_of(const MultifdCounters& counters) {
  return read_all(kMultifdRows, counters);
}
CounterList counters_of(const PageReader& reader) {
  return read_all(kSnapshotRows, reader);
}
CounterList counters_of(const AgentThreadCounters& counters) {
  return read_all(kCoreRows, counters);
}
CounterList counters_of(const ColoSecondary& colo) {
  return read_all(kColoRows, colo);
}
CounterList counters_of(const PostcopyNumbers& postcopy) {
  return read_all(kPostcopyRows, postcopy);
}
CounterList counters_of(const DaemonNumbers& numbers) {
  return read_all(kDaemonRows, numbers);
}
CounterList counters_of(const BufferTotals& buffers) {
  return read_all(kMemoryRows, buffers);
}

CounterList counters_of(const std::vector<const PollCore*>& cores, const PortTotals& ports) {
  CounterList out = read_all(kPortRows, ports);
  add_sums<PollCounter>(
      out, "poll", kPollCounterInfo, cores,
      [](const PollCore& core) -> const auto& { return core.counters(); });
  add_sums<WireCounter>(
      out, "wire", kWireCounterInfo, cores,
      [](const PollCore& core) -> const auto& { return core.wire_counters(); });
  add_sums<TcpCounter>(
      out, "tcp", kTcpCounterInfo, cores,
      [](const PollCore& core) -> const auto& { return core.tcp_counters(); });
  return out;
}

std::vector<SessionValue> values_of(const SessionNumbers& numbers) {
  return read_values(MetricScope::session, kSessionRows, numbers);
}
std::vector<SessionValue> values_of(const Report& report) {
  return read_values(MetricScope::process, kProcessRows, report);
}
std::vector<SessionValue> values_of(const CoreReport& core) {
  return read_values(MetricScope::core, kCoreTimeRows, core);
}

}  // namespace migrx

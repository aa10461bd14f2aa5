#include "loader/app/watch/metric_table.h"

#include <algorithm>

#include "dataplane/poll_core.h"

namespace migrx {
namespace {

struct Row {
  MetricScope scope;
  const char* report_name;
  const char* metric;
  MetricKind kind;
  const char* help;
};

constexpr auto kMain = MetricScope::main_channel;
constexpr auto kEach = MetricScope::channel;
constexpr auto kMultifd = MetricScope::multifd_channel;
constexpr auto kCore = MetricScope::core;
constexpr auto kData = MetricScope::dataplane;
constexpr auto kMemory = MetricScope::memory;
constexpr auto kCounter = MetricKind::counter;
constexpr auto kGauge = MetricKind::gauge;

constexpr Row kRows[] = {
    {kEach, "slices", "migrx_channel_slices_total", kCounter,
     "Pieces of the stream given to the channel's parser."},
    {kEach, "parked_turns", "migrx_channel_parked_turns_total", kCounter,
     "Turns in which the channel waited for the others at the flush barrier."},
    {kEach, "owed_turns", "migrx_channel_owed_turns_total", kCounter,
     "Turns in which the channel waited for another worker's copies."},
    {kEach, "bytes", "migrx_channel_bytes_total", kCounter, "Bytes of the stream received in order."},
    {kEach, "segments", "migrx_channel_segments_total", kCounter, "TCP segments received."},
    {kEach, "out_of_order", "migrx_channel_out_of_order_segments_total", kCounter,
     "Segments that came before others that were due."},
    {kEach, "duplicate_segments", "migrx_channel_duplicate_segments_total", kCounter,
     "Segments that brought nothing new."},
    {kEach, "over_quota", "migrx_channel_over_quota_segments_total", kCounter,
     "Segments dropped because the channel held all of its packet buffers."},
    {kEach, "acks_sent", "migrx_channel_acks_sent_total", kCounter, "ACKs sent."},
    {kEach, "zero_window", "migrx_channel_zero_windows_total", kCounter,
     "Times the window closed because the loader was slower than the source."},
    {kMain, "normal_pages", "migrx_main_normal_pages_total", kCounter,
     "Pages whose bytes came on the main channel."},
    {kMain, "zero_pages", "migrx_main_zero_pages_total", kCounter,
     "Pages announced as zero on the main channel."},
    {kMain, "zero_pages_untouched", "migrx_main_zero_pages_untouched_total", kCounter,
     "Of the zero pages, those that already were zero."},
    {kMain, "xbzrle_pages", "migrx_main_xbzrle_pages_total", kCounter, "Pages that came as XBZRLE patches."},
    {kMain, "xbzrle_bytes", "migrx_main_xbzrle_bytes_total", kCounter, "Bytes of XBZRLE patches."},
    {kMain, "compressed_pages", "migrx_main_compressed_pages_total", kCounter,
     "Pages that came compressed on the main channel."},
    {kMain, "compressed_bytes", "migrx_main_compressed_bytes_total", kCounter,
     "Bytes of compressed pages on the main channel."},
    {kMain, "ram_sections", "migrx_main_ram_sections_total", kCounter,
     "Sections of RAM on the main channel."},
    {kMain, "other_sections", "migrx_main_other_sections_total", kCounter,
     "Sections of other devices on the main channel."},
    {kMain, "markers", "migrx_main_markers_total", kCounter, "Flush markers met: epochs closed."},
    {kMain, "tail_bytes", "migrx_main_device_state_bytes_total", kCounter,
     "Bytes of device state passed to the destination."},
    {kMultifd, "packets", "migrx_multifd_packets_total", kCounter, "Multifd packets."},
    {kMultifd, "syncs", "migrx_multifd_syncs_total", kCounter, "Multifd packets with the SYNC flag."},
    {kMultifd, "normal_pages", "migrx_multifd_normal_pages_total", kCounter,
     "Pages whose bytes came on a multifd channel."},
    {kMultifd, "zero_pages", "migrx_multifd_zero_pages_total", kCounter,
     "Pages announced as zero on a multifd channel."},
    {kMultifd, "zero_pages_untouched", "migrx_multifd_zero_pages_untouched_total", kCounter,
     "Of the zero pages, those that already were zero."},
    {kMultifd, "payload_bytes", "migrx_multifd_payload_bytes_total", kCounter,
     "Payload bytes of multifd packets."},
    {kMultifd, "routed_bytes", "migrx_multifd_routed_bytes_total", kCounter,
     "Payload bytes that another memory node's worker copied."},
    {kCore, "turns", "migrx_core_turns_total", kCounter, "Turns of the thread on this CPU."},
    {kCore, "busy_turns", "migrx_core_busy_turns_total", kCounter, "Turns that found something to do."},
    {kData, "port.rx_packets", "migrx_port_rx_packets_total", kCounter, "Frames that the ports received."},
    {kData, "port.rx_bytes", "migrx_port_rx_bytes_total", kCounter,
     "Bytes of frames that the ports received."},
    {kData, "port.rx_missed", "migrx_port_rx_missed_total", kCounter,
     "Frames that the ports dropped because a poll core was too slow."},
    {kData, "port.rx_errors", "migrx_port_rx_errors_total", kCounter, "Frames that the ports refused."},
    {kData, "port.rx_no_buffer", "migrx_port_rx_no_buffer_total", kCounter,
     "Times the ports found no packet buffer."},
    {kData, "port.tx_packets", "migrx_port_tx_packets_total", kCounter, "Frames that the ports sent."},
    {kData, "port.link_changes", "migrx_port_link_changes_total", kCounter,
     "Times that a port's link came or went."},
    {kData, "port.tx_errors", "migrx_port_tx_errors_total", kCounter,
     "Frames that the ports could not send."},
    {kMemory, "rx_buffers", "migrx_rx_buffers", kGauge, "Packet buffers of all poll cores."},
    {kMemory, "rx_buffers_available", "migrx_rx_buffers_available", kGauge,
     "Packet buffers that are free now."},
    {kMemory, "hugepage_pools", "migrx_hugepage_pools", kGauge,
     "Whether packet buffers lie in hugepages, 1 or 0."},
};

template <class Table>
void add_all(std::vector<MetricInfo>& out, const char* group, const Table& table) {
  for (const CounterInfo& counter : table) {
    MetricInfo info;
    info.scope = kData;
    info.report_name = std::string(group) + "." + std::string(counter.name);
    info.metric = "migrx_" + std::string(group) + "_" + std::string(counter.name) + "_total";
    info.help = std::string(counter.sentence) + ".";
    info.help.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(info.help.front())));
    out.push_back(std::move(info));
  }
}

}  // namespace

const std::vector<MetricInfo>& metric_table() {
  static const std::vector<MetricInfo> table = [] {
    std::vector<MetricInfo> all;
    for (const Row& row : kRows) all.push_back({row.scope, row.report_name, row.metric, row.kind, row.help});
    add_all(all, "poll", kPollCounterInfo);
    add_all(all, "wire", kWireCounterInfo);
    add_all(all, "tcp", kTcpCounterInfo);
    return all;
  }();
  return table;
}

const MetricInfo* find_metric(MetricScope scope, std::string_view report_name) {
  const auto& table = metric_table();
  const auto at = std::find_if(table.begin(), table.end(), [&](const MetricInfo& info) {
    return info.scope == scope && info.report_name == report_name;
  });
  return at == table.end() ? nullptr : &*at;
}

}  // namespace migrx

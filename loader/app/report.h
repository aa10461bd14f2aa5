// The JSON report: what happened, for machines. One file per migration, written whether it went well or not.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "loader/stream/error.h"
#include "loader/tls/tls_counters.h"

namespace migrx {

// Times are seconds since the command started; negative: did not happen.
struct Timeline {
  double prefault_s = -1;      // how long guest memory took to be made ready
  double ready_s = -1;         // the source could connect
  double setup_s = -1;         // first byte of the main channel
  double precopy_s = -1;       // block list known, pages may flow
  double switchover_s = -1;    // the source's guest was stopped (first sign of it in the stream)
  double ram_complete_s = -1;  // the last page was in place
  double device_state_s = -1;  // the last byte of device state had come
  double handed_on_s = -1;     // and had been given to the destination's socket
  double done_s = -1;          // verdict sent, source gone
};

struct BlockReport {
  std::string id;
  uint64_t length = 0;
  uint64_t pages_written = 0;  // distinct pages whose bytes came from the stream or that were cleared
  std::string path;            // empty: private memory
  int node = -1;
  bool fresh = false;
  uint64_t huge_mapped_bytes = 0;  // mapped by huge pages, of hugetlbfs or transparent ones
};

// Named counters keep the order they were added in.
using CounterList = std::vector<std::pair<std::string, uint64_t>>;

struct ChannelReport {
  std::string name;  // "main", "multifd 0"
  std::string peer;
  int poll_core = -1;
  int loader_core = -1;
  std::string end;  // how its stream ended, "" while open
  CounterList counters;
};

// A port as it was negotiated with its device.
struct PortReport {
  std::string port;    // devargs
  std::string driver;  // DPDK's: "net_virtio"
  std::string mac;
  int node = -1;     // -1: a virtual device's
  std::string link;  // "up, 100 Gbit/s, full duplex", "down"; when the report was written
  uint64_t mtu = 0;
  uint64_t queues = 0;
  uint64_t rx_descriptors = 0;  // of each queue
  uint64_t tx_descriptors = 0;
  std::vector<std::string> offloads;  // that are on
};

// A port's link came or went.
struct LinkEvent {
  double at_s = 0;
  std::string port;
  bool up = false;
};

// A turn of a thread that took long (dataplane/stall_recorder.h).
struct StallReport {
  double at_unix_s = 0;  // when it ended, in the host's clock
  double us = 0;
  std::string agent;  // who found most of the work, "poll 0"; empty: nobody found any
  uint32_t work = 0;
  uint32_t preemptions = 0;  // since the stall before
};

struct CoreReport {
  std::string role;  // "poll", "loader", "poll+loader"
  int cpu = -1;
  int node = -1;
  double busy_s = 0;
  double idle_s = 0;
  double longest_turn_us = 0;
  CounterList counters;
  uint64_t stalls = 0;  // all of them; the last ones:
  std::vector<StallReport> last_stalls = {};
};

// Of the JSON, docs/report.schema.json. A field that is added leaves it as it is; one that goes or changes
// its meaning raises it.
constexpr int kReportFormat = 1;

struct ReportTls {
  std::string
      session;  // "TLS1.3 AES-256-GCM, CN=…" of the first connection; empty: no TLS, or no handshake yet
  uint64_t handshakes = 0;
  uint32_t reloads = 0;  // of credentials that changed
};

struct Report {
  std::string command;
  std::string version;
  std::string outcome;  // "complete", "failed", "cancelled", "unsure"
  StreamError error;    // when failed
  std::vector<std::string> warnings;
  std::string destination_version;  // QEMU's, where --qmp asked
  ReportTls tls;                    // of the source's connections
  TlsRecords tls_records;           // of those, as the loader has opened them
  ReportTls handoff_tls;            // of those to the destination
  std::string source_machine;       // machine type as the stream says it
  std::string sync_mode;            // "per round", "per section", "" without multifd
  bool return_path = false;
  uint64_t rounds = 0;                     // passes over RAM that the source began
  uint64_t ram_bytes = 0;                  // guest bytes the blocks hold
  uint64_t guest_bytes_loaded = 0;         // pages applied, zero pages included, times page size
  uint64_t wire_bytes = 0;                 // stream bytes received on all channels
  double throughput_wire_bytes_per_s = 0;  // from first byte to RAM complete
  double throughput_guest_bytes_per_s = 0;
  double prefault_bytes_per_s = 0;
  double cpu_s = 0;  // user + system time of this process
  // When the timeline began, in the host's clock, which QEMU's QMP events bear, too.
  double started_unix_s = 0;
  Timeline timeline;
  std::vector<BlockReport> blocks;
  std::vector<ChannelReport> channels;
  std::vector<CoreReport> cores;
  std::vector<PortReport> ports;       // empty: no network, as with `migrx load`
  std::vector<LinkEvent> links;        // how the ports' links changed while the session ran
  std::vector<std::string> placement;  // reasons, in words
  CounterList dataplane;               // per fate of a frame or segment, all poll cores together
  CounterList postcopy;                // empty unless the source switched
  CounterList colo;                    // checkpoints kept; empty without x-colo
  CounterList memory;                  // hugepages, packet buffers before and after
};

// The host's clock now.
[[nodiscard]] double unix_time_s();

[[nodiscard]] std::string to_json(const Report& report);
// Written beside the target and renamed, so that a reader never sees half of it. Returns an error text or "".
[[nodiscard]] std::string write_report(const std::string& path, const Report& report);
// The same of a report that is text already.
[[nodiscard]] std::string write_report_text(const std::string& path, const std::string& text);
// Whether a report can be written there, before anything begins. Empty: as far as can be told now.
[[nodiscard]] std::string check_report_path(const std::string& path);
// Some lines for a person.
[[nodiscard]] std::string summary(const Report& report);

}  // namespace migrx

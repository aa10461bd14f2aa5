#include "loader/app/load_command.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <thread>

#include "loader/app/destinations.h"
#include "loader/app/guest_blocks.h"
#include "loader/app/handoff_tls.h"
#include "loader/app/receive_options.h"
#include "loader/app/report.h"
#include "loader/app/session_report.h"
#include "loader/app/setup_error.h"
#include "loader/app/signals.h"
#include "loader/app/supervisor.h"
#include "loader/app/terminal.h"
#include "loader/app/watch/metric_table.h"
#include "loader/app/watch/service_manager.h"
#include "loader/app/watch/watch.h"
#include "loader/app/workers.h"
#include "loader/destination/destination_qemu.h"
#include "loader/snapshot/file_loader.h"
#include "numa/clock.h"
#include "numa/cpu_list.h"
#include "numa/file_id.h"

namespace migrx {
namespace {

struct LoadOptions : JobOptions {
  std::string file;
  uint64_t offset = 0;
  std::vector<std::string> capabilities;
  uint32_t workers = 0;
  std::string loader_cores;
  double stall_timeout_s = 60;
  double destination_timeout_s = 300;
};

// Every CPU this process may use, or those asked for: file reads block, so nothing is lost by sharing them.
std::vector<CpuId> cpus_of(const LoadOptions& options) {
  std::string problem;
  std::vector<CpuId> cpus;
  if (!options.loader_cores.empty()) {
    if (problem = parse_cpu_list(options.loader_cores, cpus); !problem.empty())
      throw SetupError("--loader-cores: " + problem);
    return cpus;
  }
  const std::optional<Topology> topology = load_topology("this", problem);
  if (!topology) throw SetupError(problem);
  for (const CpuInfo& cpu : topology->cpus) cpus.push_back(cpu.cpu);
  return cpus;
}

// The bytes of a file that is guest RAM are cleared before the stream is read.
std::string refuse_own_input(const std::string& input, const std::vector<RamSpec>& ram) {
  struct stat file {};
  if ((input == "-" ? ::fstat(STDIN_FILENO, &file) : ::stat(input.c_str(), &file)) != 0) return {};
  for (const RamSpec& spec : ram)
    if (file_id_at(spec.access_path()) == file_id_of(file))
      return "--ram " + spec.id + "=" + spec.path +
             " is the file that is to be loaded, whose bytes would be lost: name another file";
  return {};
}

// What is to be loaded cannot be: said before anything of the guest or its destination is touched.
struct InputRefused : SetupError {
  explicit InputRefused(const StreamError& why) : SetupError(why.message()), error(why) {}
  StreamError error;
};

// Times and counters as they are now; the loader's own thread.
void sample(const FileLoader& loader, uint64_t start_ns, Report& report) {
  const auto seconds = [start_ns](uint64_t ns) {
    return ns == 0 ? -1.0 : static_cast<double>(ns - start_ns) * 1e-9;
  };
  const FileLoadMoments& moments = loader.moments();
  report.timeline.setup_s = seconds(moments.first_byte);
  report.timeline.precopy_s = seconds(moments.blocks_known);
  report.timeline.ram_complete_s = seconds(moments.ram_complete);
  report.timeline.device_state_s = seconds(moments.last_byte);
  ChannelReport main;
  main.name = "main";
  main.counters = counters_of(loader.counters());
  main.counters.emplace_back("bytes", loader.bytes_read());
  if (const PageReader* const reader = loader.page_reader()) {
    const CounterList more = counters_of(*reader);
    main.counters.insert(main.counters.end(), more.begin(), more.end());
  }
  report.channels.push_back(std::move(main));
}

ProgressSample sample_progress(const FileLoader& loader, const BlockTable& blocks, double now_s) {
  ProgressSample sample;
  sample.now_s = now_s;
  const FileLoadMoments& moments = loader.moments();
  sample.phase = to_string(moments.last_byte != 0 || moments.ram_complete != 0 ? SessionState::device_state
                           : moments.blocks_known != 0                         ? SessionState::precopy
                                                                               : SessionState::setup);
  sample.channels_expected = 1;
  sample.channels = moments.first_byte != 0 ? 1 : 0;
  const MainCounters& counters = loader.counters();
  sample.zero_pages = counters.zero_pages.read();
  sample.pages = counters.normal_pages.read() + sample.zero_pages + counters.xbzrle_pages.read() +
                 counters.compressed_pages.read();
  sample.wire_bytes = loader.bytes_read();
  sample.epochs = counters.markers.read();
  sample.rounds = sample.pages > 0 ? counters.begun_anew.read() + 1 : 0;
  if (const PageReader* const reader = loader.page_reader()) {
    const uint64_t read = reader->counters().pages_read.load(std::memory_order_relaxed);
    const uint64_t zero = reader->counters().zero_pages.load(std::memory_order_relaxed);
    sample.pages += read + zero;
    sample.zero_pages += zero;
    sample.wire_bytes += read * kPageBytes;
  }
  if (moments.blocks_known != 0) {
    for (std::size_t i = 0; i < blocks.list().size(); ++i) sample.ram_pages += blocks.list()[i].pages();
    sample.first_pass_pages = std::min(sample.pages, sample.ram_pages);
  }
  return sample;
}

void fill_report(const FileLoader& loader, const BlockTable& blocks, uint64_t start_ns, Report& report) {
  sample(loader, start_ns, report);
  const ProgressSample progress = sample_progress(loader, blocks, report.timeline.done_s);
  report.source_machine = loader.source_machine();
  report.wire_bytes = progress.wire_bytes;
  report.rounds = progress.rounds;
  report.guest_bytes_loaded = progress.pages * kPageBytes;
  const double duration = report.timeline.ram_complete_s - report.timeline.setup_s;
  if (report.timeline.ram_complete_s > 0 && duration > 0) {
    report.throughput_wire_bytes_per_s = static_cast<double>(report.wire_bytes) / duration;
    report.throughput_guest_bytes_per_s = static_cast<double>(report.guest_bytes_loaded) / duration;
  }
  report_blocks(blocks, report);
}

int load(const LoadOptions& options, const Lifeline& lifeline) {
  const uint64_t start_ns = monotonic_ns();
  const auto now_s = [start_ns] { return static_cast<double>(monotonic_ns() - start_ns) * 1e-9; };
  const SignalWatch signals;
  StandardTerminal terminal(options.quiet);
  Report report;
  report.started_unix_s = unix_time_s() - now_s();
  report.command = "load";
  report.version = MIGRX_VERSION;
  report.outcome = "failed";
  int exit_status = 2;
  terminal.describe("MIGRX_COMMAND", report.command);
  ServiceManager manager(service_environment(), lifeline.held() ? ::getppid() : ::getpid());
  if (!manager.warning().empty()) terminal.warn("warning: " + manager.warning());
  try {
    if (const std::string problem = check_destination_options(options); !problem.empty())
      throw SetupError(problem);
    for (const std::string& name : options.capabilities) {
      if (const std::string problem = check_capability(name); !problem.empty()) throw SetupError(problem);
      if (name == "x-colo") throw SetupError("capability x-colo is for `migrx receive`: leave it out");
    }
    ReceiveOptions stream;
    stream.capabilities = options.capabilities;
    const std::vector<RamSpec> ram = prepare_job(options);
    if (const std::string problem = refuse_own_input(options.file, ram); !problem.empty())
      throw SetupError(problem);
    const MemorySettings memory = memory_settings(options);
    FileLoadSettings settings;
    settings.main = session_settings(stream, 1).main;
    settings.cpus = cpus_of(options);
    settings.readers = options.workers > 0 ? options.workers : static_cast<uint32_t>(settings.cpus.size());
    settings.now_ns = monotonic_ns;
    settings.stall_ns = static_cast<uint64_t>(options.stall_timeout_s * 1e9);
    settings.destination_ns = static_cast<uint64_t>(options.destination_timeout_s * 1e9);

    SnapshotInput input(options.file, options.offset);
    const auto turn = [&] {
      if (terminal.due())
        terminal.progress(fmt::format("{:7.1f}s waiting for the first bytes of {}", now_s(), options.file));
      return signals.wait(0) != 0;
    };
    if (const StreamError why = input.open(turn, settings.now_ns, settings.stall_ns)) throw InputRefused(why);

    Watch watch(options.metrics, options.loader_cores.empty() ? std::vector<CpuId>{} : settings.cpus, report);
    watch.announce();
    if (!watch.warning().empty()) report.warnings.push_back(watch.warning());
    // Prefault needs to know on which CPUs; loading from a file needs no poll cores.
    Placement placement;
    for (const CpuId cpu : settings.cpus) placement.threads.push_back({cpu, kAnyNode, {}});
    HandoffTls handoff_tls(options, /*source_tls=*/false, report);
    std::map<std::string, uint64_t> addresses =
        inspect_by_qmp(options, ram, handoff_tls.security() != nullptr, report, terminal, signals);
    GuestBlocks guest(ram, options.private_ram_max, options.handoff.has_value(), lifeline, signals);
    const double prefault_started_s = now_s();
    manager.status("takes the guest's memory", now_s());
    guest.prefault(placement, memory, terminal, signals);
    report.timeline.prefault_s = now_s() - prefault_started_s;
    std::string problem;
    const PageKernels* const kernels = select_page_kernels(problem);
    if (kernels == nullptr) throw SetupError(problem);
    CompressJobs compress(0, 1, *kernels);
    arm_by_qmp(options, {}, guest, report, terminal, signals);
    for (const std::string& warning : report.warnings) terminal.warn("warning: " + warning);
    const std::unique_ptr<Destination> destination =
        make_destination(options.handoff, options.dump_blocks, guest, std::move(addresses),
                         /*stall_ns=*/0,  // the end of the file ends it
                         handoff_choice(options, 0, handoff_tls.security()));
    FileLoader loader(std::move(settings), input, guest.table(), *destination, *kernels, compress);
    exit_status = 1;
    manager.ready(now_s());
    report.error = loader.run([&](uint64_t position) {
      if (manager.present()) {
        manager.status(fmt::format("byte {} of {}", position, options.file), now_s());
        manager.look(now_s(), {});
      }
      if (terminal.due())
        terminal.progress(fmt::format("{:7.1f}s byte {} of {}", now_s(), position, options.file));
      watch.look(now_s(), SessionState::precopy, 0, [&](Report& live) {
        live.warnings = report.warnings;
        live.timeline = report.timeline;
        sample(loader, start_ns, live);
        live.cpu_s = cpu_seconds();
        return sample_progress(loader, guest.table(), now_s());
      });
      return signals.wait(0) != 0;
    });
    if (!report.error) {
      // Nothing that comes now changes where the guest is.
      exit_status = 0;
      report.outcome = "complete";
      guest.keep(options.unlink);
      disarm_by_qmp(options, report);
    }
    if (!destination->warning().empty()) report.warnings.push_back(destination->warning());
    report.timeline.done_s = now_s();
    if (destination->last_sent_ns() > 0)
      report.timeline.handed_on_s = static_cast<double>(destination->last_sent_ns() - start_ns) * 1e-9;
    fill_report(loader, guest.table(), start_ns, report);
    handoff_tls.tell(terminal, report);
    handoff_tls.report(report);
    guest.report(report);
    report.cpu_s = cpu_seconds();
    if (exit_status == 0) {
      keep_blocks(options, guest, report);
    } else if (report.error.error_class == ErrorClass::cancelled) {
      report.outcome = "cancelled";
    }
  } catch (const InputRefused& refused) {
    terminal.warn(refused.what());
    report.error = refused.error;
    if (report.error.error_class == ErrorClass::cancelled) report.outcome = "cancelled";
  } catch (const std::exception& trouble) {
    terminal.warn(trouble.what());
    if (exit_status == 0)
      report.warnings.push_back(std::string("the report is not whole: ") + trouble.what());
    else
      report.error = make_error(ErrorClass::io, 0, "host", "%s", trouble.what());
  }
  manager.stopping(report.error ? report.error.message() : report.outcome);
  terminal.describe("MIGRX_OUTCOME", report.outcome);
  terminal.describe("MIGRX_EXIT_STATUS", std::to_string(exit_status));
  return tell_outcome(options, report, terminal, exit_status);
}

}  // namespace

void add_load_command(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<LoadOptions>();
  CLI::App* const command =
      app.add_subcommand("load", "load guest RAM from a file: a migration stream or a mapped-ram snapshot");
  command->add_option("FILE", options->file, "what `migrate file:` or `exec:cat > FILE` wrote")->required();
  command
      ->add_option("--offset", options->offset,
                   "where the stream begins in the file, as in file:FILE,offset=")
      ->transform(CLI::AsSizeValue(false));
  command->add_option("--capability", options->capabilities,
                      "migration capability that was on at the source");
  command
      ->add_option("--workers", options->workers,
                   "threads that read a mapped-ram snapshot (default: one per CPU)")
      ->check(CLI::Range(1, 256));
  command->add_option("--loader-cores", options->loader_cores, "CPUs for those threads, e.g. 4-7");
  add_job_options(*command, *options);
  const CLI::Range seconds(0.0, 1e6);
  command
      ->add_option("--stall-timeout", options->stall_timeout_s,
                   "seconds in which a pipe brings no byte, or the destination takes none, before loading "
                   "fails (0: for ever)")
      ->check(seconds)
      ->capture_default_str();
  command
      ->add_option("--destination-timeout", options->destination_timeout_s,
                   "seconds for the destination to say that it has the guest (0: for ever)")
      ->check(seconds)
      ->capture_default_str();
  one_word_each(*command);
  command->callback([options, &exit_status] {
    Supervision supervision;
    supervision.receive = [&](const Lifeline& lifeline) { return load(*options, lifeline); };
    exit_status = supervise(supervision);
  });
}

}  // namespace migrx

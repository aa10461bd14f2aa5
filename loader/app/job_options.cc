#include "loader/app/job_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "loader/app/dump.h"
#include "loader/app/guest_blocks.h"
#include "loader/app/report.h"
#include "loader/app/runtime_folder.h"
#include "loader/app/setup_error.h"
#include "loader/app/terminal.h"
#include "loader/app/watch/metrics_server.h"

namespace migrx {

void add_job_options(CLI::App& command, JobOptions& o) {
  const char* const memory = "Memory";
  command
      .add_option("--ram", o.ram,
                  "file of a RAM block: ID=PATH, then ,size=4G ,node=0 ,addr=0 ,mode=0600 "
                  ",owner=USER:GROUP ,in-use=allow as needed; may repeat. Mode and owner are for files that "
                  "migrx makes. Blocks not named stay in private memory")
      ->group(memory);
  command.add_flag("--unlink", o.unlink, "remove the files that migrx made after success, too")
      ->group(memory);
  command
      .add_option("--private-ram-max", o.private_ram_max,
                  "most memory for blocks without a file (32 MiB of it are prepared before loading)")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str()
      ->group(memory);

  command
      .add_flag("--no-memory-check", o.no_memory_check,
                "start even when the host, or a control group, seems to have too little memory")
      ->group(memory);
  command
      .add_option(
          "--memory-cgroup", o.memory_group,
          "folder below /sys/fs/cgroup of the control group that pays for the files (default: that of "
          "the destination QEMU when it maps them, else migrx's own)")
      ->group(memory);

  const char* const destination = "Destination";
  auto* const handoff =
      command
          .add_option("--handoff", o.handoff,
                      "unix:PATH or tcp:ADDRESS:PORT of the destination QEMU's incoming socket")
          ->group(destination);
  command
      .add_option("--destination-pid", o.destination_pid,
                  "process id of the destination QEMU, whose memory is checked (default: the process that "
                  "listens at --handoff); needed when a relay stands in between")
      ->needs(handoff)
      ->check(CLI::Range(1, INT32_MAX))
      ->group(destination);
  command
      .add_option("--handoff-form", o.handoff_form,
                  "plain, or x-ignore-shared for a destination with that capability on")
      ->check(CLI::IsMember({"plain", "x-ignore-shared"}))
      ->capture_default_str()
      ->needs(handoff)
      ->group(destination);
  command
      .add_flag("--no-handoff", o.no_handoff,
                "no destination QEMU: keep RAM and device state (tests, forensics)")
      ->excludes(handoff)
      ->group(destination);
  command
      .add_option(
          "--qmp", o.qmp,
          "unix:PATH of the destination's QMP socket: migrx looks at its memory, sets its capabilities "
          "and gives it migrate-incoming")
      ->group(destination);
  command
      .add_option("--handoff-tls-creds", o.handoff_tls_creds,
                  "x509:dir=DIR or psk:dir=DIR with which the hand-off is encrypted, for a destination with "
                  "tls-creds; a client's files under QEMU's names (ca-cert.pem, client-cert.pem, "
                  "client-key.pem; keys.psk). More options after commas: priority=, verify-peer=, "
                  "sanity-check=, password-file= (x509), username= (psk)")
      ->needs(handoff)
      ->type_name("KIND:dir=DIR")
      ->group(destination);
  command
      .add_option("--handoff-tls-hostname", o.handoff_tls_hostname,
                  "name or address that the destination's certificate must have (default: the address in "
                  "--handoff, unless that is a UNIX socket or loopback)")
      ->type_name("NAME")
      ->group(destination);
  command
      .add_option("--handoff-tls", o.handoff_tls,
                  "whether the hand-off is encrypted: on, off, or auto, with --handoff-tls-creds when the "
                  "source's stream is")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str()
      ->needs(handoff)
      ->group(destination);
  command
      .add_option("--dump-blocks", o.dump_blocks,
                  "directory for the blocks without a file and the device state")
      ->group(destination);

  const char* const reporting = "Reporting";
  command.add_option("--report", o.report, "file for the JSON report")->group(reporting);
  add_metrics_option(command, o.metrics, reporting);
  command.add_flag("--quiet", o.quiet, "no progress, errors only")->group(reporting);
}

void add_metrics_option(CLI::App& command, std::optional<std::string>& address, const char* group) {
  command
      .add_option(
          "--metrics", address,
          "address at which metrics for Prometheus are served, as /metrics; a port alone means 127.0.0.1")
      ->type_name("[ADDRESS:]PORT")
      ->group(group);
}

void one_word_each(CLI::App& command) {
  for (CLI::Option* const option : command.get_options())
    if (option->get_expected_max() > 1) option->allow_extra_args(false);
}

std::vector<RamSpec> prepare_job(const JobOptions& options) {
  if (options.metrics)
    if (const std::string problem = metrics_problem(*options.metrics); !problem.empty())
      throw SetupError(problem);
  if (options.report)
    if (const std::string problem = check_report_path(*options.report); !problem.empty())
      throw SetupError(problem);
  std::vector<RamSpec> ram;
  for (const std::string& text : options.ram) {
    ram.emplace_back();
    if (const std::string problem = parse_ram_spec(text, ram.back()); !problem.empty())
      throw SetupError(problem);
  }
  if (options.dump_blocks)
    if (const std::string problem = prepare_dump_directory(*options.dump_blocks); !problem.empty())
      throw SetupError(problem);
  return ram;
}

MemorySettings memory_settings(const JobOptions& options) {
  MemorySettings settings;
  settings.check = !options.no_memory_check;
  settings.group = options.memory_group;
  while (settings.group.ends_with('/')) settings.group.pop_back();
  const HostFiles files;
  if (!settings.group.empty() &&
      (!settings.group.starts_with("/sys/fs/cgroup/") || settings.group.find("/..") != std::string::npos ||
       !files.exists(settings.group + "/cgroup.procs")))
    throw SetupError("--memory-cgroup " + settings.group +
                     ": not a control group: name a folder below /sys/fs/cgroup");
  settings.runtime_folder = usable_runtime_folder(options.runtime_dir);
  return settings;
}

void keep_blocks(const JobOptions& options, GuestBlocks& guest, Report& report) {
  guest.keep(options.unlink);
  if (!options.dump_blocks) return;
  if (std::string problem = dump_blocks(guest.table(), *options.dump_blocks); !problem.empty())
    report.warnings.push_back(std::move(problem));
}

int tell_outcome(const JobOptions& options, const Report& report, Terminal& terminal, int exit_status) {
  if (report.outcome == "complete")
    terminal.say(summary(report));
  else if (exit_status != 2)
    terminal.warn(summary(report));
  if (!options.report) return exit_status;
  if (const std::string problem = write_report(*options.report, report); !problem.empty()) {
    terminal.warn("warning: " + problem + "; the report follows");
    std::fprintf(stderr, "%s\n", to_json(report).c_str());
  }
  return exit_status;  // it says where the guest is, and a full disk does not move it
}

}  // namespace migrx

#include "loader/app/destinations.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "loader/app/handoff_tls.h"
#include "loader/app/setup_error.h"
#include "loader/destination/destination_qemu.h"
#include "loader/destination/destination_setup.h"
#include "loader/destination/device_state_file.h"

namespace migrx {
namespace {

UnixSocket qmp_socket(const JobOptions& options) {
  UnixSocket socket;
  (void)parse_unix_address(*options.qmp, socket.path);
  socket.access = options.qmp_access;
  return socket;
}

std::unique_ptr<QmpClient> connect_qmp(const JobOptions& options, Terminal& terminal,
                                       const Interruption& interruption) {
  std::string problem;
  std::unique_ptr<QmpClient> client = QmpClient::connect(
      qmp_socket(options), problem, interruption.fd(), [&terminal, &options](double seconds) {
        if (terminal.due())
          terminal.progress(
              fmt::format("the destination QEMU has not answered at {} for {:.1f} s", *options.qmp, seconds));
      });
  if (client == nullptr) throw SetupError(problem);
  return client;
}

HandoffForm form_of(const JobOptions& options) {
  return options.handoff_form == "plain" ? HandoffForm::plain : HandoffForm::x_ignore_shared;
}

void take(const DestinationSetup& setup, Report& report) {
  if (!setup.problem.empty()) throw SetupError(setup.problem);
  report.warnings.insert(report.warnings.end(), setup.warnings.begin(), setup.warnings.end());
}

// As GuestMemory::open() will find it.
uint64_t block_bytes(const RamSpec& spec) {
  struct stat status {};
  if (spec.size > 0 || ::stat(spec.access_path().c_str(), &status) != 0) return spec.size;
  return static_cast<uint64_t>(status.st_size);
}

}  // namespace

SourceCapabilities source_capabilities(const std::vector<std::string>& names) {
  const auto has = [&names](const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  return {has("switchover-ack"), has("postcopy-ram"), has("postcopy-preempt")};
}

HandoffChoice handoff_choice(const JobOptions& options, uint32_t source_channels, LinkSecurity* security) {
  return {.form = form_of(options),
          .process = options.destination_pid,
          .source_channels = source_channels,
          .access = options.handoff_access,
          .security = security};
}

std::unique_ptr<Destination> make_destination(const std::optional<std::string>& handoff,
                                              const std::optional<std::string>& dump_blocks,
                                              const GuestBlocks& guest,
                                              std::map<std::string, uint64_t> addresses, uint64_t stall_ns,
                                              HandoffChoice choice) {
  if (!handoff) {
    DeviceStateLimits limits;
    limits.stall_ns = stall_ns;
    return std::make_unique<DeviceStateFile>(dump_blocks ? *dump_blocks + "/device-state" : "", limits,
                                             guest.shared_files());
  }
  DestinationSettings settings;
  (void)parse_socket_address(*handoff, settings.address);
  settings.form = choice.form;
  settings.addresses = std::move(addresses);
  settings.files = guest.shared_files();
  settings.process = choice.process;
  settings.source_channels = choice.source_channels;
  settings.access = choice.access;
  settings.security = choice.security;
  settings.refill = choice.refill;
  settings.memory_postponed = choice.memory_postponed;
  settings.on_postcopy = std::move(choice.on_postcopy);
  return std::make_unique<DestinationQemu>(std::move(settings), guest.table().list());
}

std::map<std::string, uint64_t> inspect_by_qmp(const JobOptions& options, const std::vector<RamSpec>& ram,
                                               bool tls, Report& report, Terminal& terminal,
                                               const Interruption& interruption) {
  if (!options.qmp) {
    std::map<std::string, uint64_t> addresses;
    for (const RamSpec& spec : ram)
      if (spec.addr) addresses[spec.id] = *spec.addr;
    return addresses;
  }
  std::vector<SetupBlock> wanted;
  for (const RamSpec& spec : ram)
    wanted.push_back({spec.id, spec.access_path(), block_bytes(spec), spec.node.value(), spec.addr});
  const std::unique_ptr<QmpClient> client = connect_qmp(options, terminal, interruption);
  DestinationSetup setup = inspect_destination(*client, wanted, form_of(options), tls);
  take(setup, report);
  report.destination_version = setup.version;
  return std::move(setup.addresses);
}

void arm_by_qmp(const JobOptions& options, SourceCapabilities source, const GuestBlocks& guest,
                Report& report, Terminal& terminal, const Interruption& interruption) {
  if (!options.qmp) return;
  const std::unique_ptr<QmpClient> client = connect_qmp(options, terminal, interruption);
  take(arm_destination(*client, *options.handoff, source, form_of(options), guest.shared_files()), report);
}

void disarm_by_qmp(const JobOptions& options, Report& report) {
  if (!options.handoff || form_of(options) != HandoffForm::x_ignore_shared) return;
  std::string problem = "migrx was not asked to (--qmp)";
  if (options.qmp) {
    const std::unique_ptr<QmpClient> client = QmpClient::connect(qmp_socket(options), problem);
    if (client != nullptr) problem = disarm_destination(*client);
  }
  if (!problem.empty())
    report.warnings.push_back(
        "the capability x-ignore-shared is still on at the destination, and its next save would leave the "
        "guest's RAM out: migrate_set_capability x-ignore-shared off there (" +
        problem + ")");
}

std::string check_destination_options(const JobOptions& options) {
  const std::optional<std::string>& handoff = options.handoff;
  const std::optional<std::string>& qmp = options.qmp;
  if (!options.no_handoff && !handoff)
    return "say where the guest goes: --handoff unix:PATH or tcp:ADDRESS:PORT for a destination QEMU, or "
           "--no-handoff to keep "
           "RAM only";
  if (qmp && !handoff) return "--qmp prepares a destination QEMU: it needs --handoff";
  SocketAddress address;
  if (handoff)
    if (const std::string problem = parse_socket_address(*handoff, address); !problem.empty())
      return "--handoff " + problem;
  std::string path;
  if (qmp && !parse_unix_address(*qmp, path))
    return "--qmp " + *qmp + ": expected unix:PATH, with a path shorter than 108 bytes";
  if (std::string problem = check_handoff_tls(options); !problem.empty()) return problem;
  // A source that has come would be lost to it. With --destination-pid the way starts in that process's
  // network namespace.
  if (handoff && !address.is_unix() && !options.destination_pid)
    if (const std::string problem = no_way_to(address); !problem.empty())
      return "--handoff " + *handoff + ": no connection can be made to that address from here (" + problem +
             "): name another address of the destination QEMU, or its process by --destination-pid where it "
             "is in another network namespace";
  return {};
}

}  // namespace migrx

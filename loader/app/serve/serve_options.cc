#include "loader/app/serve/serve_options.h"

#include <fmt/format.h>
#include <pwd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>

#include "loader/app/handoff_tls.h"
#include "loader/app/reception.h"
#include "loader/app/tenant_options.h"
#include "loader/app/tls_setup.h"
#include "loader/app/watch/metrics_server.h"
#include "loader/destination/port_range.h"

namespace migrx {
namespace {

constexpr uint32_t kUsualChannels = 8;
constexpr uint32_t kConnectionsMax = 4096;  // of a poll core
constexpr const char* kAny = "any";
// Of libvirt on Debian, and elsewhere.
constexpr std::array kUsualUsers{"root", "libvirt-qemu", "qemu"};

bool has_family(const std::vector<std::string>& addresses, bool ipv6) {
  return std::any_of(addresses.begin(), addresses.end(), [ipv6](const std::string& list) {
    std::size_t at = 0;
    for (;;) {
      const std::size_t comma = list.find(',', at);
      const std::string one = list.substr(at, comma == std::string::npos ? comma : comma - at);
      if ((one.find(':') != std::string::npos) == ipv6) return true;
      if (comma == std::string::npos) return false;
      at = comma + 1;
    }
  });
}

void add_found_tls_options(CLI::App& command, FoundTlsOptions& o) {
  const char* const encryption = "Encryption (of all migrations into the QEMUs of --serve-ports)";
  command
      .add_option(
          "--tls-creds", o.creds,
          "x509:dir=DIR or psk:dir=DIR, as of migrx receive: their sources' streams are encrypted, and "
          "one without TLS is refused")
      ->type_name("KIND:dir=DIR")
      ->group(encryption);
  command
      .add_option("--tls-authz", o.authz,
                  "subject of a source's certificate that may connect, as of migrx receive; may repeat")
      ->type_name("SUBJECT")
      ->group(encryption);
  command
      .add_option("--handoff-tls-creds", o.handoff_creds,
                  "x509:dir=DIR or psk:dir=DIR, as of migrx receive: those QEMUs have tls-creds, too")
      ->type_name("KIND:dir=DIR")
      ->group(encryption);
  command
      .add_option("--handoff-tls-hostname", o.handoff_hostname,
                  "name or address that their certificates must have: this host's")
      ->type_name("NAME")
      ->group(encryption);
}

std::string check_found_tls(const ServeOptions& o) {
  const FoundTlsOptions& tls = o.found_tls;
  if (o.serve_ports.empty() && (tls.creds || !tls.authz.empty() || tls.handoff_creds || tls.handoff_hostname))
    return "--tls-creds and --handoff-tls-creds of serve are for the QEMUs of --serve-ports: give that, too; "
           "a migration that is asked for brings its own";
  if (std::string problem = check_tls_options(tls.creds, tls.authz); !problem.empty()) return problem;
  if (tls.handoff_creds && !tls.creds)
    return "--handoff-tls-creds: QEMUs have tls-creds when their sources have: give --tls-creds, too";
  return check_handoff_tls(tls.job_options());
}

// CLI11 reads configuration files for the program's first words only, not for a subcommand's.
void take_file(CLI::App& command, const std::string& path) {
  for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_file(path)) {
    CLI::Option* const option =
        item.parents.empty() ? command.get_option_no_throw("--" + item.name) : nullptr;
    if (option == nullptr || option->check_name("--config"))
      throw CLI::ConfigError(path + ": " + item.fullname() + " is no option of serve");
    if (option->get_items_expected_max() == 0)
      option->add_result(option->get_flag_value(item.name, CLI::ConfigTOML().to_flag(item)));
    else
      option->add_result(item.inputs);
  }
}

}  // namespace

JobOptions FoundTlsOptions::job_options() const {
  JobOptions options;
  options.handoff = "tcp:127.0.0.1:49152";  // they wait on this host, at whichever port
  options.handoff_tls_creds = handoff_creds;
  options.handoff_tls_hostname = handoff_hostname;
  return options;
}

std::string user_ids(const std::vector<std::string>& names, std::vector<uid_t>& out) {
  out.clear();
  const bool usual = names.empty();
  for (const std::string& name :
       usual ? std::vector<std::string>(kUsualUsers.begin(), kUsualUsers.end()) : names) {
    uid_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc{} && end == name.data() + name.size() && number != static_cast<uid_t>(-1)) {
      out.push_back(number);
    } else if (const passwd* const entry = ::getpwnam(name.c_str()); entry != nullptr) {
      out.push_back(entry->pw_uid);
    } else if (!usual) {
      return "--serve-users " + name + ": this host knows no such user";
    }
  }
  return {};
}

void add_serve_options(CLI::App& command, ServeOptions& o) {
  add_host_options(command, o);
  add_core_options(command, o, "Placement");
  const char* const network = "Network";
  command
      .add_option("--allow", o.allow,
                  "network that may connect, in CIDR form, or any; may repeat. A migration may name its own "
                  "instead. The host's firewall does not see these packets")
      ->required()
      ->group(network);
  command
      .add_option("--listen-range", o.listen_range,
                  "TCP ports for migrations that name none, and all that other clients than root may name")
      ->type_name("FIRST-LAST")
      ->capture_default_str()
      ->group(network);
  command
      .add_option("--serve-ports", o.serve_ports,
                  "TCP ports on which QEMUs of this host wait for guests (-incoming tcp:…; libvirt's "
                  "49152-49215): a source that connects to one of them here is received into that QEMU, and "
                  "nothing else has to be said")
      ->type_name("FIRST-LAST")
      ->group(network);
  command
      .add_option("--serve-users", o.serve_users,
                  "user whose QEMUs those may be; may repeat (default: root, and libvirt-qemu and qemu where "
                  "there are such users). Others could have guests sent into processes of theirs")
      ->type_name("USER")
      ->group(network);

  add_found_tls_options(command, o.found_tls);
  const char* const control = "Control";
  command.add_option("--control", o.control, "path of the control socket")
      ->capture_default_str()
      ->group(control);
  command
      .add_option("--group", o.group, "group that may use the control socket (default: the process's own)")
      ->group(control);
  command
      .add_option("--client-folder", o.client_folders,
                  "folder below which other clients than root may name files of guest RAM and sockets of "
                  "destinations; may repeat")
      ->group(control);

  const char* const limits = "Limits";
  command.add_option("--sessions-max", o.sessions_max, "migrations at a time; more are refused")
      ->check(CLI::Range(1, 256))
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--connections-max", o.connections_max,
                  "connections of all migrations; packet buffers are reserved for each (default: those of "
                  "--sessions-max migrations with 8 multifd channels each)")
      ->check(CLI::Range(1U, kConnectionsMax))
      ->group(limits);
  command
      .add_option("--private-ram-total", o.private_ram_total,
                  "most memory for blocks without a file, of all migrations (default: 1 GiB for each of "
                  "--sessions-max)")
      ->transform(CLI::AsSizeValue(false))
      ->group(limits);
  command
      .add_option("--drain-timeout", o.drain_timeout_s,
                  "seconds after SIGTERM in which migrations that are under way may end by themselves; those "
                  "whose guest still runs at its source are ended then (0: for ever)")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--runtime-dir", o.runtime_dir,
                  "folder in which the process of --linger announces itself and a new daemon finds it "
                  "(default: /run/migrx, or migrx in $XDG_RUNTIME_DIR)")
      ->group(limits);

  const char* const reporting = "Reporting";
  add_metrics_option(command, o.metrics, reporting);
  command.add_flag("--quiet", o.quiet, "errors and warnings only")->group(reporting);
  command
      .add_flag("!--no-supervisor", o.supervise,
                "run without the parent process that frees the sources when this process is killed")
      ->group(reporting);
  one_word_each(command);
  command
      .add_option_function<std::string>(
          "--config", [&command](const std::string& path) { take_file(command, path); },
          "file with options, one NAME=VALUE a line, lists as [\"A\", \"B\"]; an option stands in the file "
          "or "
          "on the command line, not in both")
      ->trigger_on_parse();
}

uint32_t connections_of(const ServeOptions& o) {
  if (o.connections_max > 0) return o.connections_max;
  return std::min(o.sessions_max * places_for(kUsualChannels), kConnectionsMax);
}

uint64_t private_ram_of(const ServeOptions& o) {
  return o.private_ram_total > 0 ? o.private_ram_total : uint64_t{o.sessions_max} << 30;
}

std::vector<std::string> allowed_networks(const ServeOptions& o) {
  std::vector<std::string> networks;
  for (const std::string& text : o.allow) {
    if (text != kAny) {
      networks.push_back(text);
      continue;
    }
    if (has_family(o.addresses, /*ipv6=*/false)) networks.emplace_back("0.0.0.0/0");
    if (has_family(o.addresses, /*ipv6=*/true)) networks.emplace_back("::/0");
  }
  return networks;
}

std::string check_serve_options(const ServeOptions& o) {
  PortRange range;
  if (!parse_port_range(o.listen_range, range))
    return fmt::format("--listen-range {}: expected two ports such as 49152-49215, the smaller one first",
                       o.listen_range);
  if (PortRange found; !o.serve_ports.empty()) {
    if (!parse_port_range(o.serve_ports, found))
      return fmt::format("--serve-ports {}: expected two ports such as 49152-49215, the smaller one first",
                         o.serve_ports);
    if (found.first <= range.last && range.first <= found.last)
      return fmt::format(
          "--serve-ports {} and --listen-range {} have ports in common: give other ports to "
          "those who ask for a migration, such as --listen-range 4444-4507",
          o.serve_ports, o.listen_range);
  }
  std::vector<uid_t> users;
  if (std::string problem = user_ids(o.serve_users, users); !problem.empty()) return problem;
  if (o.serve_ports.empty() && !o.serve_users.empty())
    return "--serve-users is about the QEMUs of --serve-ports: give that, too";
  if (std::string problem = check_found_tls(o); !problem.empty()) return problem;
  TenantOptions tenant;
  tenant.listen = range.first;
  tenant.allow = allowed_networks(o);
  if (std::string problem = check_host_options(o, tenant); !problem.empty()) return problem;
  if (connections_of(o) < places_for(0))
    return fmt::format("--connections-max {} is too few: one migration without multifd may need {}",
                       o.connections_max, places_for(0));
  if (o.metrics)
    if (std::string problem = metrics_problem(*o.metrics); !problem.empty()) return problem;
  for (const std::string& folder : o.client_folders)
    if (!folder.starts_with('/')) return fmt::format("--client-folder {}: give an absolute path", folder);
  return {};
}

}  // namespace migrx

#include "loader/app/doctor_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>

#include "dataplane/dpdk/eal.h"
#include "loader/app/job_options.h"
#include "loader/doctor/doctor.h"
#include "numa/cpu_list.h"

namespace migrx {
namespace {

struct DoctorOptions {
  std::vector<std::string> ports;
  std::vector<std::string> addresses;
  std::vector<std::string> ram;
  std::string poll_cores;
  std::string loader_cores;
  uint64_t mtu = 1500;
  std::string certificate;
  std::string root;
  bool all = false;
  bool list = false;
  bool json = false;
  bool strict = false;
};

std::string parse(const DoctorOptions& options, DoctorWish& wish) {
  std::string problem;
  wish.ports = options.ports;
  wish.addresses = options.addresses;
  wish.mtu = options.mtu;
  wish.certificate = options.certificate;
  for (const std::string& text : options.ram) {
    RamSpec spec;
    if (problem = parse_ram_spec(text, spec); !problem.empty()) return problem;
    wish.ram.push_back(std::move(spec));
  }
  if (!options.poll_cores.empty())
    if (problem = parse_cores(options.poll_cores, wish.poll_cpus, wish.poll_count); !problem.empty())
      return "--poll-cores: " + problem;
  if (!options.loader_cores.empty())
    if (problem = parse_cores(options.loader_cores, wish.loader_cpus, wish.loader_count); !problem.empty())
      return "--loader-cores: " + problem;
  if (!options.root.empty() && !std::filesystem::is_directory(options.root + "/proc"))
    return "--root " + options.root +
           ": there is no folder proc in it; it must hold another host's /proc and /sys";
  return {};
}

int examine_host(const DoctorOptions& options) {
  if (options.list) {
    for (const Check* const check : all_checks()) std::printf("%-18s %s\n", check->id, check->why);
    return 0;
  }
  DoctorWish wish;
  if (const std::string problem = parse(options, wish); !problem.empty()) {
    std::fprintf(stderr, "migrx: %s\n", problem.c_str());
    return 2;
  }
  ProgramFacts program;
  program.dpdk_version = dpdk_version();
  program.driver_folder = dpdk_driver_folder();
  // Programs of a recorded host cannot be asked.
  if (options.root.empty()) program.version_of = version_of_program;
  HostFacts host = gather_facts(HostFiles(options.root), program);
  if (options.root.empty())
    for (const RamSpec& spec : wish.ram) host.ram_files[spec.path] = ram_file_facts(spec.path);
  const std::vector<Finding> findings = examine(host, wish, std::time(nullptr));
  const std::string text =
      options.json ? findings_json(findings, MIGRX_VERSION) : findings_text(findings, options.all);
  std::fputs(text.c_str(), stdout);
  return doctor_status(findings, options.strict);
}

}  // namespace

void add_doctor_command(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* const command = app.add_subcommand(
      "doctor", "tell whether this host is ready to receive, and which command mends what is not");
  command->add_option("--port", options->ports, "DPDK devargs of a port that will receive; may repeat")
      ->type_name("DEVARGS");
  command->add_option("--address", options->addresses, "the port's IPv4 address; may repeat")
      ->type_name("A.B.C.D/N");
  command->add_option("--ram", options->ram, "ID=PATH[,size=4G][,node=0] of a RAM block; may repeat");
  command->add_option("--mtu", options->mtu, "MTU of the link")
      ->check(CLI::Range(576, 65535))
      ->capture_default_str();
  command->add_option("--poll-cores", options->poll_cores, "CPUs that will poll ports, e.g. 2,3");
  command->add_option("--loader-cores", options->loader_cores, "CPUs that will write guest RAM, e.g. 4-7");
  command
      ->add_option("--certificate", options->certificate, "PEM file of the receiver's certificate, for TLS")
      ->type_name("FILE");
  command
      ->add_option("--root", options->root,
                   "folder with another host's /proc and /sys: checks that host by its files, without "
                   "running programs")
      ->type_name("DIR");
  command->add_flag("--all", options->all, "list also what is in order");
  command->add_flag("--strict", options->strict, "warnings count as failures in the exit status");
  command->add_flag("--json", options->json, "for machines");
  command->add_flag("--list", options->list, "only list the checks, with the reason for each");
  one_word_each(*command);
  command->callback([options, &exit_status] { exit_status = examine_host(*options); });
}

}  // namespace migrx

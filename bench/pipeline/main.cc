// bench/pipeline: frames replayed from memory through poll core, TCP, hand-off rings and loader worker into
// guest RAM. See docs/performance.md.
//
//   build/bench/pipeline                        every row, the table
//   build/bench/pipeline --mtu 1500 --channels 8 --repetitions 9 --json out.json
//   build/bench/pipeline --stages --all         cycles by stage of both agents, instead of rows
//   build/bench/pipeline --tiny                 a small run of every kind, as the tests do
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "bench/pipeline/pipeline.h"
#include "bench/pipeline/report.h"
#include "bench/pipeline/stages.h"

namespace migrx::bench {
namespace {

// Warm: what the part of L3 that a virtual machine can count on holds. Cold: what no part holds.
constexpr uint32_t kWarmMib = 16;
constexpr uint32_t kColdMib = 128;

struct Command {
  PipelineOptions base;
  std::vector<PipelineOptions> rows;
  std::vector<StageOptions> stages;
  uint32_t repetitions = 5;
  std::string json;
};

std::vector<PipelineOptions> all_rows(const PipelineOptions& base) {
  std::vector<PipelineOptions> rows;
  for (const uint32_t mtu : {1500U, 4096U, 9000U}) {
    PipelineOptions row = base;
    row.mtu = mtu;
    row.pool_mib = kWarmMib;
    for (const uint32_t channels : {1U, 8U, 64U, 255U}) {
      row.channels = channels;
      rows.push_back(row);
    }
    row.channels = 8;
    PipelineOptions other = row;
    other.pool_mib = kColdMib;
    rows.push_back(other);
    other = row;
    other.one_thread = true;
    rows.push_back(other);
    other = row;
    other.ipv6 = true;
    rows.push_back(other);
    other = row;
    other.checksum_good = false;
    rows.push_back(other);
    other = row;
    other.scatter = true;
    rows.push_back(other);
    for (const uint32_t kib : {16U, 64U}) {
      other = row;
      other.coalesce_kib = kib;
      rows.push_back(other);
      other.one_thread = true;
      rows.push_back(other);
    }
    for (const uint32_t every : {1000U, 100U, 20U}) {
      other = row;
      other.drop_every = every;
      rows.push_back(other);
    }
  }
  return rows;
}

// All shapes, little work: correctness is what counts.
std::vector<PipelineOptions> tiny_rows(const PipelineOptions& base) {
  std::vector<PipelineOptions> rows = all_rows(base);
  for (PipelineOptions& row : rows) {
    row.guest_mib = 4;
    row.rounds = 3;
    row.pool_mib = row.pool_mib == kColdMib ? 8 : 4;
    // Two CPUs of their own may not be there: a spinning poll core would wait for its worker's time slice.
    row.one_thread = true;
    row.poll_cpu = row.worker_cpu = -1;
    // 4 MiB are some hundred segments of 9000 bytes.
    if (row.drop_every > 0) row.drop_every = std::max(row.drop_every / 10, 2U);
  }
  PipelineOptions other = rows.front();
  other.channels = 8;
  other.loader_cores = 3;
  rows.push_back(other);
  // IPv6 with all that looks into its frames.
  PipelineOptions ipv6 = rows.front();
  ipv6.ipv6 = true;
  ipv6.channels = 8;
  other = ipv6;
  other.checksum_good = false;
  rows.push_back(other);
  other = ipv6;
  other.coalesce_kib = 64;
  rows.push_back(other);
  other = ipv6;
  other.drop_every = 20;
  rows.push_back(other);
  for (const uint32_t burst : {8U, 16U, kBurst}) {
    other = rows.front();
    other.burst = burst;
    rows.push_back(other);
  }
  return rows;
}

// The ladder of a row with both sides on one core, and with two cores where the row has them.
void add_ladders(const PipelineOptions& row, uint32_t repetitions, std::vector<StageOptions>& out) {
  StageOptions ladder;
  ladder.mtu = row.mtu;
  ladder.channels = row.channels;
  ladder.pool_mib = row.pool_mib;
  ladder.run = row.run;
  ladder.burst = row.burst;
  ladder.checksum_good = row.checksum_good;
  ladder.demote = row.demote;
  ladder.repetitions = repetitions;
  ladder.cpu = row.poll_cpu;
  out.push_back(ladder);
  if (row.one_thread || row.worker_cpu < 0) return;
  ladder.other_cpu = row.worker_cpu;
  out.push_back(ladder);
}

std::vector<StageOptions> stage_rows(const PipelineOptions& base, uint32_t repetitions, bool all) {
  std::vector<StageOptions> out;
  if (!all) add_ladders(base, repetitions, out);
  for (const uint32_t mtu : {1500U, 4096U, 9000U})
    for (const bool good : {true, false}) {
      if (!all) continue;
      PipelineOptions row = base;
      row.mtu = mtu;
      row.checksum_good = good;
      add_ladders(row, repetitions, out);
    }
  return out;
}

[[noreturn]] void usage(const char* what) {
  std::fprintf(
      stderr,
      "pipeline: %s\n"
      "usage: pipeline [--mtu BYTES] [--channels 1..255] [--pool MIB] [--guest MIB] [--rounds N] [--run N]\n"
      "                [--burst FRAMES] [--coalesce KIB] [--drop-every SEGMENTS] [--loader-cores N]\n"
      "                [--one-thread] [--software-checksum] [--scatter] [--no-demote] [--ipv6]\n"
      "                [--realtime] [--poll-cpu N] [--worker-cpu N] [--repetitions N] [--json FILE]\n"
      "                [--stages] [--all] [--tiny]\n",
      what);
  std::exit(2);
}

uint32_t number(std::string_view option, const char* text) {
  char* end = nullptr;
  const unsigned long value = text == nullptr ? 0 : std::strtoul(text, &end, 10);
  if (text == nullptr || *text == '\0' || *end != '\0' || value > 1'000'000)
    usage((std::string(option) + " wants a number").c_str());
  return static_cast<uint32_t>(value);
}

Command parse(int argc, char** argv) {
  Command command;
  PipelineOptions& row = command.base;
  bool all = argc == 1;
  bool tiny = false;
  bool stages = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    const auto value = [&] { return number(option, i + 1 < argc ? argv[++i] : nullptr); };
    if (option == "--mtu")
      row.mtu = value();
    else if (option == "--channels")
      row.channels = value();
    else if (option == "--pool")
      row.pool_mib = value();
    else if (option == "--guest")
      row.guest_mib = value();
    else if (option == "--rounds")
      row.rounds = value();
    else if (option == "--run")
      row.run = value();
    else if (option == "--burst")
      row.burst = value();
    else if (option == "--coalesce")
      row.coalesce_kib = value();
    else if (option == "--drop-every")
      row.drop_every = value();
    else if (option == "--loader-cores")
      row.loader_cores = value();
    else if (option == "--repetitions")
      command.repetitions = std::max(value(), 1U);
    else if (option == "--poll-cpu")
      row.poll_cpu = static_cast<int32_t>(value());
    else if (option == "--worker-cpu")
      row.worker_cpu = static_cast<int32_t>(value());
    else if (option == "--one-thread")
      row.one_thread = true;
    else if (option == "--software-checksum")
      row.checksum_good = false;
    else if (option == "--scatter")
      row.scatter = true;
    else if (option == "--no-demote")
      row.demote = false;
    else if (option == "--ipv6")
      row.ipv6 = true;
    else if (option == "--realtime")
      row.realtime = true;
    else if (option == "--stages")
      stages = true;
    else if (option == "--all")
      all = true;
    else if (option == "--tiny")
      tiny = true;
    else if (option == "--json" && i + 1 < argc)
      command.json = argv[++i];
    else
      usage(("unknown option " + std::string(option)).c_str());
  }
  if (stages && row.ipv6) usage("--stages measures IPv4 alone: leave out --ipv6");
  command.rows = {row};
  if (all) command.rows = all_rows(row);
  if (tiny) {
    command.rows = tiny_rows(row);
    command.repetitions = 1;
    row.poll_cpu = -1;
    row.one_thread = true;
    command.stages = stage_rows(row, 1, true);
    for (StageOptions& ladder : command.stages) ladder.segments = 1000;
  }
  if (stages) {
    if (!tiny) command.stages = stage_rows(row, command.repetitions, all);
    command.rows.clear();
  }
  for (const PipelineOptions& each : command.rows)
    if (const std::string problem = problem_of(each); !problem.empty()) usage(problem.c_str());
  return command;
}

}  // namespace
}  // namespace migrx::bench

int main(int argc, char** argv) {
  using namespace migrx::bench;
  const Command command = parse(argc, argv);
  try {
    Report report;
    if (!command.rows.empty()) report.print_heading();
    for (const PipelineOptions& row : command.rows) {
      std::vector<PipelineResult> results;
      for (uint32_t i = 0; i < command.repetitions; ++i) {
        results.push_back(run_pipeline(row));
        if (!results.back().problem.empty()) {
          std::fprintf(stderr, "MTU %u, %u channels: %s\n", row.mtu, row.channels,
                       results.back().problem.c_str());
          return 1;
        }
      }
      report.add(row, results);
    }
    for (const StageOptions& ladder : command.stages)
      for (const bool poll : {true, false}) {
        const char* const agent = poll ? "poll" : "loader";
        const StageResult result = poll ? run_poll_stages(ladder) : run_loader_stages(ladder);
        if (!result.problem.empty()) {
          std::fprintf(stderr, "stages of the %s, MTU %u: %s\n", agent, ladder.mtu, result.problem.c_str());
          return 1;
        }
        report.add_stages(agent, ladder, result);
      }
    if (!command.json.empty()) report.write_json(command.json);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "pipeline: %s\n", problem.what());
    return 1;
  }
  return 0;
}

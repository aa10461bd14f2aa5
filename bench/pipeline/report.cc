#include "bench/pipeline/report.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <stdexcept>

#include "bench/pipeline/replay_port.h"
#include "loader/ram/kernels/page_kernels.h"

namespace migrx::bench {
namespace {

struct Figure {
  const char* name;
  double PipelineResult::*value;
};
constexpr std::array kFigures{
    Figure{"ram_gb_s", &PipelineResult::ram_gbs},
    Figure{"wire_gb_s", &PipelineResult::wire_gbs},
    Figure{"nt_limit_gb_s", &PipelineResult::nt_limit_gbs},
    Figure{"copy_limit_gb_s", &PipelineResult::copy_limit_gbs},
    Figure{"met_limit_gb_s", &PipelineResult::met_limit_gbs},
    Figure{"loader_gb_s", &PipelineResult::loader_gbs},
    Figure{"loader_of_nt_limit", &PipelineResult::loader_ratio},
    Figure{"loader_of_copy_limit", &PipelineResult::loader_copy_ratio},
    Figure{"loader_bytes_per_cycle", &PipelineResult::loader_bytes_cycle},
    Figure{"loader_busy", &PipelineResult::loader_busy},
    Figure{"poll_cycles_per_segment", &PipelineResult::poll_cycles},
    Figure{"poll_cycles_per_segment_all_turns", &PipelineResult::poll_all_cycles},
    Figure{"poll_cycles_per_frame", &PipelineResult::poll_frame_cycles},
    Figure{"poll_busy", &PipelineResult::poll_busy},
    Figure{"source_cycles_per_segment", &PipelineResult::source_cycles},
    Figure{"segments_per_burst", &PipelineResult::burst},
    Figure{"acks_per_segment", &PipelineResult::acks_per_segment},
    Figure{"ring_slices_mean", &PipelineResult::ring_mean},
    Figure{"ring_slices_max", &PipelineResult::ring_max},
    Figure{"busy_gb_s_of_both_agents", &PipelineResult::one_core_gbs},
    Figure{"seconds", &PipelineResult::seconds},
    Figure{"segments", &PipelineResult::segments},
    Figure{"lost", &PipelineResult::lost},
    Figure{"timeouts", &PipelineResult::timeouts},
    Figure{"out_of_order", &PipelineResult::out_of_order},
};

// Sorted values of one figure.
std::vector<double> values_of(const std::vector<PipelineResult>& results, double PipelineResult::*value) {
  std::vector<double> values;
  for (const PipelineResult& result : results) values.push_back(result.*value);
  std::sort(values.begin(), values.end());
  return values;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double median(const std::vector<PipelineResult>& results, double PipelineResult::*value) {
  return median(values_of(results, value));
}

std::string text(double value) {
  std::array<char, 32> out;
  std::snprintf(out.data(), out.size(), "%.6g", value);
  return out.data();
}

// {"median": .., "min": .., "max": ..}
std::string spread_of(const std::vector<double>& values) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  return "{\"median\": " + text(median(values)) + ", \"min\": " + text(*least) + ", \"max\": " + text(*most) +
         "}";
}

// Upper rung less lower, repetition by repetition: each was measured beside the other.
std::vector<double> step_of(const StageResult& result, std::size_t rung) {
  std::vector<double> steps = result.rungs[rung].cycles;
  if (rung > 0)
    for (std::size_t i = 0; i < steps.size(); ++i) steps[i] -= result.rungs[rung - 1].cycles[i];
  return steps;
}

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string kind_of(const PipelineOptions& row) {
  std::string kind = row.one_thread ? "1 thread" : "1+" + std::to_string(row.loader_cores);
  if (row.ipv6) kind += " IPv6";
  if (!row.checksum_good) kind += " sw-csum";
  if (row.scatter) kind += " scatter";
  if (row.coalesce_kib > 0) kind += " lro " + std::to_string(row.coalesce_kib) + "K";
  if (row.burst != 32) kind += " burst " + std::to_string(row.burst);
  if (row.drop_every > 0) kind += " lost 1/" + std::to_string(row.drop_every);
  return kind;
}

}  // namespace

void Report::print_heading() const {
  std::string problem;
  const PageKernels* const kernels = select_page_kernels(problem);
  std::printf("%s, TSC %.0f MHz, kernels %s\n", cpu_model().c_str(), tsc_hz() / 1e6,
              kernels == nullptr ? "?" : kernels->name);
  std::printf(
      "%5s %4s %6s %-18s | %7s %6s %7s | %6s %6s %6s %6s %5s %5s | %7s %7s %7s %6s %6s %5s | %7s %7s\n",
      "MTU", "chan", "pool", "shape", "GB/s", "+-%", "cable", "loader", "stores", "pool", "met", "of it",
      "B/cyc", "poll/s", "poll/f", "all/s", "port/s", "burst", "ACKs", "ring", "1core");
}

void Report::add(const PipelineOptions& row, const std::vector<PipelineResult>& results) {
  const auto m = [&](double PipelineResult::*value) { return median(results, value); };
  const std::vector<double> rates = values_of(results, &PipelineResult::ram_gbs);
  const double spread = (rates.back() - rates.front()) / 2 / m(&PipelineResult::ram_gbs) * 100;
  std::printf(
      "%5u %4u %3uMiB %-18s | %7.2f %6.1f %7.2f | %6.2f %6.2f %6.2f %6.2f %5.2f %5.2f | %7.1f %7.1f "
      "%7.1f %6.1f %6.1f %5.2f | %7.0f %7.2f\n",
      row.mtu, row.channels, row.pool_mib, kind_of(row).c_str(), m(&PipelineResult::ram_gbs), spread,
      m(&PipelineResult::wire_gbs), m(&PipelineResult::loader_gbs), m(&PipelineResult::nt_limit_gbs),
      m(&PipelineResult::copy_limit_gbs), m(&PipelineResult::met_limit_gbs),
      m(&PipelineResult::loader_copy_ratio), m(&PipelineResult::loader_bytes_cycle),
      m(&PipelineResult::poll_cycles), m(&PipelineResult::poll_frame_cycles),
      m(&PipelineResult::poll_all_cycles), m(&PipelineResult::source_cycles), m(&PipelineResult::burst),
      m(&PipelineResult::acks_per_segment), m(&PipelineResult::ring_mean), m(&PipelineResult::one_core_gbs));
  std::fflush(stdout);

  if (!rows_.empty()) rows_ += ",\n";
  const auto flag = [](bool on) { return on ? "true" : "false"; };
  rows_ +=
      "    {\"mtu\": " + std::to_string(row.mtu) + ", \"channels\": " + std::to_string(row.channels) +
      ", \"pool_mib\": " + std::to_string(row.pool_mib) +
      ", \"guest_mib\": " + std::to_string(row.guest_mib) + ", \"rounds\": " + std::to_string(row.rounds) +
      ", \"run\": " + std::to_string(row.run) + ", \"burst\": " + std::to_string(row.burst) +
      ", \"drop_every\": " + std::to_string(row.drop_every) +
      ", \"coalesce_kib\": " + std::to_string(row.coalesce_kib) +
      ", \"loader_cores\": " + std::to_string(row.loader_cores) +
      ", \"one_thread\": " + flag(row.one_thread) + ", \"ipv6\": " + flag(row.ipv6) +
      ", \"checksum\": " + (row.checksum_good ? "\"good by port\"" : "\"software\"") +
      ", \"scatter\": " + flag(row.scatter) + ", \"demote\": " + flag(row.demote) +
      ", \"buffers\": " + std::to_string(results.front().buffers) + ", \"pool_mib_used\": " +
      text(results.front().buffers * static_cast<double>(ReplayPort::stride_of(row.mtu)) / (1 << 20)) +
      ", \"quota\": " + std::to_string(results.front().quota) + ", \"pages\": \"" + results.front().pages +
      "\", \"dropped\": 0, \"ram_verified\": true, \"repetitions\": " + std::to_string(results.size());
  for (const Figure& figure : kFigures) {
    const std::vector<double> values = values_of(results, figure.value);
    rows_ += ",\n     \"" + std::string(figure.name) + "\": " + spread_of(values);
  }
  rows_ += "}";
}

void Report::add_stages(const char* agent, const StageOptions& options, const StageResult& result) {
  const char* const other = options.other_cpu < 0 ? "same core" : "another core";
  const char* const checksum = options.checksum_good ? "good by port" : "software";
  std::printf(
      "\n%s: cycles per segment by stage, MTU %u, %u channels, pool %u MiB, checksum %s, other side on %s\n",
      agent, options.mtu, options.channels, options.pool_mib, checksum, other);
  if (!stages_.empty()) stages_ += ",\n";
  stages_ += std::string("    {\"agent\": \"") + agent + "\", \"mtu\": " + std::to_string(options.mtu) +
             ", \"channels\": " + std::to_string(options.channels) +
             ", \"pool_mib\": " + std::to_string(options.pool_mib) +
             ", \"burst\": " + std::to_string(options.burst) + ", \"checksum\": \"" + checksum +
             "\", \"other_side\": \"" + other + "\", \"segments\": " + std::to_string(options.segments) +
             ", \"repetitions\": " + std::to_string(options.repetitions);
  std::string list;
  for (std::size_t i = 0; i < result.rungs.size(); ++i) {
    const Rung& rung = result.rungs[i];
    const std::vector<double> steps = step_of(result, i);
    std::printf("  %-18s %7.1f  (%.1f to %.1f), sum %7.1f  %s\n", rung.name, median(steps),
                *std::min_element(steps.begin(), steps.end()), *std::max_element(steps.begin(), steps.end()),
                median(rung.cycles), rung.what);
    list += std::string(i == 0 ? "" : ",") + "\n      {\"stage\": \"" + rung.name + "\", \"what\": \"" +
            rung.what + "\", \"cycles\": " + spread_of(steps) + ", \"sum\": " + spread_of(rung.cycles) + "}";
  }
  stages_ += ", \"stages\": [" + list + "],\n     \"alone\": [";
  for (std::size_t i = 0; i < result.alone.size(); ++i) {
    const Rung& rung = result.alone[i];
    std::printf("  %-18s %7.1f  by itself: %s\n", rung.name, median(rung.cycles), rung.what);
    stages_ += std::string(i == 0 ? "" : ", ") + "{\"stage\": \"" + rung.name + "\", \"what\": \"" +
               rung.what + "\", \"cycles\": " + spread_of(rung.cycles) + "}";
  }
  stages_ += "]}";
  std::fflush(stdout);
}

void Report::write_json(const std::string& path) const {
  utsname system{};
  uname(&system);
  std::ofstream out(path);
  out << "{\n  \"cpu\": \"" << cpu_model() << "\",\n  \"kernel\": \"" << system.release
      << "\",\n  \"compiler\": \"" << __VERSION__ << "\",\n  \"tsc_hz\": " << text(tsc_hz())
      << ",\n  \"rows\": [\n"
      << rows_ << "\n  ],\n  \"stages\": [\n"
      << stages_ << "\n  ]\n}\n";
  if (!out.flush()) throw std::runtime_error("cannot write " + path);
}

}  // namespace migrx::bench

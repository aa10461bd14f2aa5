// bench/prefault: how fast guest memory is faulted in, beside the rates at which as many threads clear memory
// that is there already: in one piece, which lets the C library store past the caches, and in pieces of 4
// KiB, as the kernel clears a fresh page of whatever size. The latter is what faulting in can reach at best.
//
//   build/bench/prefault FOLDER [--size MIB] [--repetitions N] [--json FILE]
//
// FOLDER lies on hugetlbfs or tmpfs. Every repetition makes a new file, faults it in, looks at every byte,
// and removes the file. --size 64 in the tests, where the result alone counts.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "numa/guest_memory.h"

namespace migrx::bench {
namespace {

struct Options {
  std::string folder;
  uint64_t bytes = 1ULL << 30;
  uint32_t repetitions = 5;
  std::string json;
};

// bytes / s of each repetition
struct Row {
  uint32_t threads = 0;
  std::vector<double> prefault;
  std::vector<double> clear;
  std::vector<double> clear_small;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double spread(const std::vector<double>& values) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  return (*most - *least) / median(values);
}

// Seconds that `threads` threads take to clear what is mapped already, a chunk at a time as prefault() does.
double clear_again(std::byte* data, uint64_t bytes, uint32_t threads, uint64_t piece) {
  constexpr uint64_t kChunk = 64 << 20;
  std::atomic<uint64_t> next{0};
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> workers;
  for (uint32_t i = 0; i < threads; ++i)
    workers.emplace_back([&] {
      for (uint64_t at = next.fetch_add(kChunk); at < bytes; at = next.fetch_add(kChunk)) {
        for (uint64_t part = at; part < std::min(at + kChunk, bytes); part += piece) {
          std::memset(data + part, 0, std::min(piece, bytes - part));
          ::benchmark::ClobberMemory();
        }
      }
    });
  for (std::thread& worker : workers) worker.join();
  return seconds_since(begin);
}

void repeat(const Options& options, Row& row) {
  RamSpec spec;
  spec.id = "bench";
  spec.path = options.folder + "/migrx-prefault-bench-" + std::to_string(row.threads);
  spec.size = options.bytes;
  std::string problem;
  const auto memory = GuestMemory::open(spec, problem);
  if (memory == nullptr) throw std::runtime_error(problem);
  std::vector<CpuId> cpus;
  for (uint32_t i = 0; i < row.threads; ++i) cpus.emplace_back(static_cast<int32_t>(i));
  const auto begin = std::chrono::steady_clock::now();
  problem = memory->prefault(cpus, "", nullptr);
  const double took = seconds_since(begin);
  if (!problem.empty()) throw std::runtime_error(problem);
  const std::byte* const data = memory->data();
  if (!std::all_of(data, data + options.bytes, [](std::byte b) { return b == std::byte{0}; }))
    throw std::runtime_error("memory that was faulted in is not zero");
  std::memset(memory->data(), 1, options.bytes);
  row.prefault.push_back(static_cast<double>(options.bytes) / took);
  row.clear.push_back(static_cast<double>(options.bytes) /
                      clear_again(memory->data(), options.bytes, row.threads, 64 << 20));
  row.clear_small.push_back(static_cast<double>(options.bytes) /
                            clear_again(memory->data(), options.bytes, row.threads, 4096));
}

void write_json(const Options& options, const std::vector<Row>& rows) {
  std::FILE* const file = std::fopen(options.json.c_str(), "w");
  if (file == nullptr) throw std::runtime_error("cannot write " + options.json);
  std::fprintf(file, "{\"bench\": \"prefault\", \"folder\": \"%s\", \"bytes\": %llu, \"rows\": [",
               options.folder.c_str(), static_cast<unsigned long long>(options.bytes));
  for (std::size_t i = 0; i < rows.size(); ++i)
    std::fprintf(file,
                 "%s{\"threads\": %u, \"prefault_bytes_per_s\": %.0f, \"clear_bytes_per_s\": %.0f, "
                 "\"clear_4k_bytes_per_s\": %.0f, "
                 "\"spread\": %.3f}",
                 i == 0 ? "" : ", ", rows[i].threads, median(rows[i].prefault), median(rows[i].clear),
                 median(rows[i].clear_small), spread(rows[i].prefault));
  std::fprintf(file, "]}\n");
  std::fclose(file);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    const bool has_value = i + 1 < argc;
    if (option == "--size" && has_value)
      options.bytes = std::strtoull(argv[++i], nullptr, 10) << 20;
    else if (option == "--repetitions" && has_value)
      options.repetitions = static_cast<uint32_t>(std::max(1L, std::strtol(argv[++i], nullptr, 10)));
    else if (option == "--json" && has_value)
      options.json = argv[++i];
    else
      options.folder = option;
  }
  if (options.folder.empty() || options.bytes == 0)
    throw std::runtime_error("usage: prefault FOLDER [--size MIB]");
  return options;
}

void run(const Options& options) {
  std::vector<Row> rows(std::max(1U, std::thread::hardware_concurrency()));
  for (uint32_t i = 0; i < options.repetitions; ++i)
    for (std::size_t t = 0; t < rows.size(); ++t) {
      rows[t].threads = static_cast<uint32_t>(t + 1);
      repeat(options, rows[t]);
    }
  std::printf("%s, %llu MiB, %u repetitions, medians\n%8s %14s %14s %14s %8s %8s\n", options.folder.c_str(),
              static_cast<unsigned long long>(options.bytes >> 20), options.repetitions, "threads",
              "prefault GB/s", "clearing GB/s", "by 4 KiB", "ratio", "spread");
  for (const Row& row : rows) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < row.prefault.size(); ++i)
      ratios.push_back(row.prefault[i] / row.clear_small[i]);
    std::printf("%8u %14.2f %14.2f %14.2f %8.2f %7.0f%%\n", row.threads, median(row.prefault) / 1e9,
                median(row.clear) / 1e9, median(row.clear_small) / 1e9, median(ratios),
                100 * spread(row.prefault));
  }
  if (!options.json.empty()) write_json(options, rows);
}

}  // namespace
}  // namespace migrx::bench

int main(int argc, char** argv) {
  try {
    migrx::bench::run(migrx::bench::parse(argc, argv));
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "prefault: %s\n", problem.what());
    return 1;
  }
  return 0;
}

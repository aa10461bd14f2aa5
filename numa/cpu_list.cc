#include "numa/cpu_list.h"

#include <algorithm>
#include <charconv>

namespace migrx {
namespace {

constexpr int32_t kCpuMax = 8191;  // Linux's largest NR_CPUS

// A number at the front of `text`, which moves on; -1: none, or too large.
int32_t take_number(std::string_view& text) {
  int32_t number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || number < 0 || number > kCpuMax) return -1;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

}  // namespace

std::string parse_cpu_list(const std::string& text, std::vector<CpuId>& out) {
  std::string complaint = "'" + text + "' is not a list of CPUs such as 2,4-7";
  std::string_view rest = text;
  out.clear();
  while (true) {
    const int32_t first = take_number(rest);
    int32_t last = first;
    if (first >= 0 && rest.starts_with('-')) {
      rest.remove_prefix(1);
      last = take_number(rest);
    }
    if (first < 0 || last < first) return complaint;
    for (int32_t cpu = first; cpu <= last; ++cpu) out.emplace_back(cpu);
    if (rest.empty()) break;
    if (!rest.starts_with(',')) return complaint;
    rest.remove_prefix(1);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return {};
}

std::string format_cpu_list(std::vector<CpuId> cpus) {
  std::sort(cpus.begin(), cpus.end());
  std::string text;
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t end = i;
    while (end + 1 < cpus.size() && cpus[end + 1].value() == cpus[end].value() + 1) ++end;
    text += (text.empty() ? "" : ",") + std::to_string(cpus[i].value());
    if (end > i) text += "-" + std::to_string(cpus[end].value());
    i = end + 1;
  }
  return text;
}

bool has(const std::vector<CpuId>& cpus, CpuId cpu) {
  return std::find(cpus.begin(), cpus.end(), cpu) != cpus.end();
}

}  // namespace migrx

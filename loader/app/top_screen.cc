#include "loader/app/top_screen.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "loader/stream/printable.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

constexpr double kGiB = 1 << 30;
constexpr double kMiB = 1 << 20;
constexpr const char* kNothing = "-";

const Json& part(const Json& object, const char* name) {
  static const Json nothing;
  const auto found = object.is_object() ? object.find(name) : object.end();
  return object.is_object() && found != object.end() ? *found : nothing;
}

std::optional<double> number(const Json& object, const char* name) {
  const Json& value = part(object, name);
  return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
}

std::string whole(const Json& object, const char* name) {
  const std::optional<double> value = number(object, name);
  return value ? fmt::format("{:.0f}", *value) : kNothing;
}

std::string text(const Json& object, const char* name) {
  const Json& value = part(object, name);
  return value.is_string() ? printable(value.get_ref<const std::string&>()) : kNothing;
}

bool is(const Json& session, std::string_view state) {
  const Json& value = part(session, "state");
  return value.is_string() && value.get_ref<const std::string&>() == state;
}

// nullopt: no CPU has such a number.
std::optional<int64_t> cpu_of(const Json& core) {
  const std::optional<double> cpu = number(core, "cpu");
  if (!cpu || *cpu < -1 || *cpu > 1e6) return std::nullopt;
  return static_cast<int64_t>(*cpu);
}

std::string row(const std::array<std::string, 8>& cells) {
  return fmt::format("{:<6} {:<12} {:>5}  {:>8}  {:>12}  {:>5}  {:>10}  {:>9}", cells[0], cells[1], cells[2],
                     cells[3], cells[4], cells[5], cells[6], cells[7]);
}

// 1234567 -> "1.2M"
std::string short_rate(const std::optional<double>& per_s) {
  if (!per_s) return kNothing;
  if (*per_s >= 1e6) return fmt::format("{:.1f}M", *per_s / 1e6);
  if (*per_s >= 1e4) return fmt::format("{:.1f}k", *per_s / 1e3);
  return fmt::format("{:.0f}", *per_s);
}

std::string duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return kNothing;
  const auto all = static_cast<uint64_t>(seconds + 0.5);
  if (all >= 3600) return fmt::format("{}h{:02}m", all / 3600, all / 60 % 60);
  if (all >= 60) return fmt::format("{}m{:02}s", all / 60, all % 60);
  return fmt::format("{}s", all);
}

std::string used_of(const Json& budget, const char* used, const char* most) {
  return whole(budget, used) + " of " + whole(budget, most);
}

std::string of_memory(const Json& budget) {
  const std::optional<double> used = number(budget, "private-ram");
  const std::optional<double> most = number(budget, "private-ram-total");
  return used && most ? fmt::format("{:.0f} of {:.0f} MiB", *used / kMiB, *most / kMiB) : kNothing;
}

}  // namespace

void TopScreen::grow(Growth& growth, double value, double now_s) {
  growth.per_s.reset();
  if (growth.known && now_s > growth.at_s && value >= growth.value)
    growth.per_s = (value - growth.value) / (now_s - growth.at_s);
  growth.value = value;
  growth.at_s = now_s;
  growth.known = true;
}

void TopScreen::take_host(const Json& host, double now_s) {
  for (const char* const name : {"port.rx_packets", "port.rx_bytes", "port.rx_missed", "port.tx_packets"})
    grow(counters_[name], number(part(host, "dataplane"), name).value_or(0), now_s);
  for (const Json& core : part(host, "cores")) {
    const std::optional<int64_t> cpu = cpu_of(core);
    if (!cpu) continue;
    grow(busy_[*cpu], number(core, "busy_s").value_or(0), now_s);
    grow(idle_[*cpu], number(core, "idle_s").value_or(0), now_s);
  }
  host_ = host_lines(host);
}

void TopScreen::take_sessions(const Json& sessions, double now_s) {
  std::map<std::string, Growth> received;  // of those that are still there
  for (const Json& session : sessions) {
    const std::string id = text(session, "id");
    if (const auto before = received_.find(id); before != received_.end()) received[id] = before->second;
    if (const auto bytes = number(part(session, "figures"), "wire-bytes")) grow(received[id], *bytes, now_s);
  }
  received_ = std::move(received);
  std::vector<std::string> over;
  sessions_.clear();
  for (const Json& session : sessions)
    (is(session, "done") ? over : sessions_).push_back(session_line(session));
  sessions_.insert(sessions_.end(), over.rbegin(), over.rend());
}

void TopScreen::take_event(const std::string& name, const Json& data, const std::string& clock) {
  std::string line = clock + "  " + text(data, "id") + "  " + printable(name);
  if (const Json& round = part(data, "round"); round.is_number()) line += " " + round.dump();
  for (const char* const member : {"outcome", "reason"})
    if (const std::string more = text(data, member); more != kNothing) line += "  " + more;
  events_.push_front(std::move(line));
  if (events_.size() > kEventsMax) events_.pop_back();
}

std::vector<std::string> TopScreen::host_lines(const Json& host) const {
  const Json& budget = part(host, "budget");
  const Json& draining = part(host, "draining");
  std::vector<std::string> lines;
  lines.push_back(fmt::format("migrx at {}   migrations {}   connections {}   private RAM {}{}",
                              text(host, "address"), used_of(budget, "sessions", "sessions-max"),
                              used_of(budget, "connections", "connections-max"), of_memory(budget),
                              draining.is_boolean() && draining.get<bool>() ? "   draining" : ""));
  const auto rate = [this](const char* name) {
    const auto found = counters_.find(name);
    return found == counters_.end() ? std::nullopt : found->second.per_s;
  };
  const auto bits = rate("port.rx_bytes");
  lines.push_back(fmt::format(
      "frames in {}/s ({}), out {}/s, missed {}/s   packet buffers free {} of {}",
      short_rate(rate("port.rx_packets")), bits ? fmt::format("{:.2f} Gbit/s", *bits * 8e-9) : kNothing,
      short_rate(rate("port.tx_packets")), short_rate(rate("port.rx_missed")),
      whole(part(host, "memory"), "rx_buffers_available"), whole(part(host, "memory"), "rx_buffers")));
  for (const Json& port : part(host, "ports"))
    lines.push_back(
        fmt::format("port {}  {}  {}", text(port, "port"), text(port, "link"), text(port, "mac")));
  for (const Json& core : part(host, "cores")) {
    const std::optional<int64_t> cpu = cpu_of(core);
    if (!cpu) continue;
    const auto busy = busy_.find(*cpu);
    const auto idle = idle_.find(*cpu);
    std::string share = kNothing;
    if (busy != busy_.end() && idle != idle_.end() && busy->second.per_s && idle->second.per_s &&
        *busy->second.per_s + *idle->second.per_s > 0)
      share =
          fmt::format("{:.0f} %", 100 * *busy->second.per_s / (*busy->second.per_s + *idle->second.per_s));
    lines.push_back(fmt::format("CPU {:>3}  node {}  {:<12} {:>6} of its turns useful, longest {} us", *cpu,
                                whole(core, "node"), text(core, "role"), share,
                                whole(core, "longest_turn_us")));
  }
  return lines;
}

std::string TopScreen::session_line(const Json& session) const {
  const Json& figures = part(session, "figures");
  const auto received = received_.find(text(session, "id"));
  const bool over = is(session, "done");
  std::string rate = kNothing;
  if (!over && received != received_.end() && received->second.per_s) {
    const double per_s = *received->second.per_s;
    rate =
        per_s < kGiB ? fmt::format("{:.1f} MiB/s", per_s / kMiB) : fmt::format("{:.2f} GiB/s", per_s / kGiB);
  }
  std::string left = kNothing;
  if (const auto ram = number(figures, "ram-bytes"), seen = number(figures, "first-pass-bytes");
      ram && seen && *ram > *seen)
    left = fmt::format("{:.2f} GiB", (*ram - *seen) / kGiB);
  const auto left_s = number(figures, "left-s");
  std::string channels = kNothing;
  if (figures.is_object()) channels = whole(figures, "channels") + "/" + whole(figures, "channels-expected");
  std::string line = row({text(session, "id"), text(session, "state"), whole(session, "port"), channels, rate,
                          whole(figures, "rounds"), left, left_s ? duration(*left_s) : kNothing});
  if (over)
    line += "  " + text(session, "outcome");
  else if (!figures.is_object())
    line += "  " + text(session, "progress");
  return line;
}

std::vector<std::string> TopScreen::lines(unsigned width, unsigned height) const {
  std::vector<std::string> lines = host_;
  lines.emplace_back();
  lines.push_back(row({"ID", "STATE", "PORT", "CHANNELS", "RATE", "ROUND", "PASS LEFT", "TIME LEFT"}));
  for (std::size_t i = 0; i < sessions_.size(); ++i) {
    if (lines.size() + 1 >= height && i + 1 < sessions_.size()) {
      lines.push_back(fmt::format("... and {} more", sessions_.size() - i));
      break;
    }
    lines.push_back(sessions_[i]);
  }
  if (!events_.empty() && lines.size() + 2 < height) {
    lines.emplace_back();
    for (const std::string& event : events_)
      if (lines.size() < height) lines.push_back(event);
  }
  if (lines.size() > height) lines.resize(height);
  for (std::string& line : lines) {
    if (line.size() <= width) continue;
    line.resize(width);
    make_printable(line.data(), line.size());  // a character may have been cut
  }
  return lines;
}

}  // namespace migrx

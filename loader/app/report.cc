#include "loader/app/report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace migrx {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson to_json(const CounterList& counters) {
  OrderedJson out = OrderedJson::object();
  for (const auto& [name, value] : counters) out[name] = value;
  return out;
}

std::string bytes_text(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(units)) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, units[unit]);
}

}  // namespace

double unix_time_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string to_json(const Report& r) {
  OrderedJson out;
  out["program"] = "migrx";
  out["format"] = kReportFormat;
  out["version"] = r.version;
  out["command"] = r.command;
  out["outcome"] = r.outcome;
  if (r.error) {
    out["error"] = {{"class", to_string(r.error.error_class)},
                    {"channel", to_string(r.error.channel)},
                    {"offset", r.error.offset},
                    {"field", r.error.field},
                    {"text", r.error.text.data()},
                    {"message", r.error.message()}};
    if (r.error.has_values) {
      out["error"]["found"] = r.error.found;
      out["error"]["allowed"] = r.error.allowed;
    }
  } else {
    out["error"] = nullptr;
  }
  out["warnings"] = r.warnings;
  if (!r.destination_version.empty()) out["destination_version"] = r.destination_version;
  for (const auto& [name, tls] : {std::pair("tls", &r.tls), std::pair("handoff_tls", &r.handoff_tls)})
    if (!tls->session.empty())
      out[name] = {{"session", tls->session}, {"handshakes", tls->handshakes}, {"reloads", tls->reloads}};
  if (out.contains("tls")) {
    out["tls"]["records"] = r.tls_records.records;
    out["tls"]["straight_pages"] = r.tls_records.straight_pages;
    out["tls"]["key_updates"] = r.tls_records.key_updates;
  }
  out["source_machine"] = r.source_machine;
  out["sync_mode"] = r.sync_mode;
  out["return_path"] = r.return_path;
  out["rounds"] = r.rounds;
  out["ram_bytes"] = r.ram_bytes;
  out["guest_bytes_loaded"] = r.guest_bytes_loaded;
  out["wire_bytes"] = r.wire_bytes;
  out["throughput"] = {{"wire_bytes_per_s", r.throughput_wire_bytes_per_s},
                       {"guest_bytes_per_s", r.throughput_guest_bytes_per_s},
                       {"prefault_bytes_per_s", r.prefault_bytes_per_s}};
  out["cpu_s"] = r.cpu_s;
  OrderedJson timeline = OrderedJson::object();
  const auto moment = [&](const char* name, double seconds) {
    timeline[name] = seconds < 0 ? OrderedJson(nullptr) : OrderedJson(seconds);
  };
  moment("prefault_s", r.timeline.prefault_s);
  moment("ready_s", r.timeline.ready_s);
  moment("setup_s", r.timeline.setup_s);
  moment("precopy_s", r.timeline.precopy_s);
  moment("switchover_s", r.timeline.switchover_s);
  moment("ram_complete_s", r.timeline.ram_complete_s);
  moment("device_state_s", r.timeline.device_state_s);
  moment("handed_on_s", r.timeline.handed_on_s);
  moment("done_s", r.timeline.done_s);
  out["started_unix_s"] = r.started_unix_s;
  out["timeline"] = timeline;
  out["blocks"] = OrderedJson::array();
  for (const BlockReport& b : r.blocks)
    out["blocks"].push_back({{"id", b.id},
                             {"length", b.length},
                             {"pages_written", b.pages_written},
                             {"zero_pages", b.length / 4096 - b.pages_written},
                             {"path", b.path},
                             {"node", b.node},
                             {"fresh", b.fresh},
                             {"huge_mapped_bytes", b.huge_mapped_bytes}});
  out["channels"] = OrderedJson::array();
  for (const ChannelReport& c : r.channels) {
    OrderedJson channel = {{"name", c.name},
                           {"peer", c.peer},
                           {"poll_core", c.poll_core},
                           {"loader_core", c.loader_core},
                           {"end", c.end}};
    for (const auto& [name, value] : c.counters) channel[name] = value;
    out["channels"].push_back(channel);
  }
  out["cores"] = OrderedJson::array();
  for (const CoreReport& c : r.cores) {
    OrderedJson core = {{"role", c.role},     {"cpu", c.cpu},       {"node", c.node},
                        {"busy_s", c.busy_s}, {"idle_s", c.idle_s}, {"longest_turn_us", c.longest_turn_us}};
    for (const auto& [name, value] : c.counters) core[name] = value;
    core["stalls"] = c.stalls;
    for (const StallReport& stall : c.last_stalls)
      core["last_stalls"].push_back({{"at_unix_s", stall.at_unix_s},
                                     {"us", stall.us},
                                     {"agent", stall.agent},
                                     {"work", stall.work},
                                     {"preemptions", stall.preemptions}});
    out["cores"].push_back(core);
  }
  if (!r.ports.empty()) out["ports"] = OrderedJson::array();
  for (const PortReport& p : r.ports)
    out["ports"].push_back({{"port", p.port},
                            {"driver", p.driver},
                            {"mac", p.mac},
                            {"node", p.node},
                            {"link", p.link},
                            {"mtu", p.mtu},
                            {"queues", p.queues},
                            {"rx_descriptors", p.rx_descriptors},
                            {"tx_descriptors", p.tx_descriptors},
                            {"offloads", p.offloads}});
  if (!r.links.empty()) out["links"] = OrderedJson::array();
  for (const LinkEvent& e : r.links)
    out["links"].push_back({{"at_s", e.at_s}, {"port", e.port}, {"up", e.up}});
  out["placement"] = r.placement;
  out["dataplane"] = OrderedJson::object();
  for (const auto& [name, value] : r.dataplane)
    if (value > 0) out["dataplane"][name] = value;
  if (!r.postcopy.empty()) out["postcopy"] = to_json(r.postcopy);
  if (!r.colo.empty()) out["colo"] = to_json(r.colo);
  out["memory"] = to_json(r.memory);
  return out.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::string write_report(const std::string& path, const Report& report) {
  return write_report_text(path, to_json(report));
}

namespace {

// A slip of the keyboard must not cost a snapshot or a guest's RAM: what is no JSON is no report.
bool holds_something_else(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error) || std::filesystem::file_size(path, error) == 0)
    return false;
  return std::ifstream(path, std::ios::binary).get() != '{';
}

}  // namespace

std::string write_report_text(const std::string& path, const std::string& text) {
  if (holds_something_else(path)) return "cannot write the report to " + path + ": it holds something else";
  const bool device = std::filesystem::exists(path) && !std::filesystem::is_regular_file(path);
  const std::string temporary = device ? path : path + "." + std::to_string(::getpid()) + ".tmp";
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    out << text;
    out.close();
    if (!out) {
      const std::string why = std::strerror(errno);
      if (!device) ::unlink(temporary.c_str());
      return "cannot write the report to " + path + ": " + why;
    }
  }
  if (device) return {};
  std::error_code error;
  std::filesystem::rename(temporary, path, error);
  return error ? "cannot write the report to " + path + ": " + error.message() : std::string{};
}

std::string check_report_path(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const std::string where = folder.empty() ? "." : folder.string();
  if (std::filesystem::is_directory(path)) return "--report " + path + ": is a folder; name a file";
  if (::access(where.c_str(), W_OK | X_OK) != 0)
    return "--report " + path + ": " + where + ": " + std::strerror(errno) +
           ": make the folder, or name another file";
  if (holds_something_else(path))
    return "--report " + path +
           ": holds something else than a report, which would be lost: name another file";
  return {};
}

std::string summary(const Report& r) {
  std::string out;
  const auto line = [&out](const std::string& text) { out += text + "\n"; };
  if (r.outcome == "complete")
    line(fmt::format("complete: {} of guest RAM, {} over the wire, {} rounds",
                     bytes_text(static_cast<double>(r.ram_bytes)),
                     bytes_text(static_cast<double>(r.wire_bytes)), r.rounds));
  else
    line(r.outcome +
         // The class of what an operator ended is its outcome, and no byte of a stream is to blame.
         (r.error && r.error.error_class == ErrorClass::cancelled ? ": " + std::string(r.error.text.data())
          : r.error ? ": " + std::string(to_string(r.error.error_class)) + ": " + r.error.message()
                    : ""));
  if (r.throughput_wire_bytes_per_s > 0)
    line(fmt::format("  {}/s on the wire, {}/s of guest RAM, {:.2f} s of CPU time",
                     bytes_text(r.throughput_wire_bytes_per_s), bytes_text(r.throughput_guest_bytes_per_s),
                     r.cpu_s));
  for (const BlockReport& b : r.blocks) {
    if (b.path.empty()) continue;
    line(fmt::format("  {}: {} in {}, {} pages written, {} left zero", b.id,
                     bytes_text(static_cast<double>(b.length)), b.path, b.pages_written,
                     b.length / 4096 - b.pages_written));
  }
  for (const std::string& warning : r.warnings) line("  warning: " + warning);
  return out;
}

}  // namespace migrx

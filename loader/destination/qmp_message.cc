#include "loader/destination/qmp_message.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace migrx {
namespace {

using Json = nlohmann::json;

// Deeper than any answer of QEMU's; what lies deeper is left out, so that no answer can exhaust the stack.
constexpr int kDepthMax = 32;

Json parse_json(std::string_view text) {
  return Json::parse(
      text, [](int depth, Json::parse_event_t, Json&) { return depth < kDepthMax; },
      /*allow_exceptions=*/false);
}

std::optional<std::string> string_in(const Json& object, const char* member) {
  if (!object.is_object()) return std::nullopt;
  const auto found = object.find(member);
  if (found == object.end() || !found->is_string()) return std::nullopt;
  return found->get<std::string>();
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string version_of(const Json& greeting) {
  const auto number = [&](const char* part) -> std::string {
    const Json* at = &greeting;
    for (const char* const key : {"version", "qemu", part}) {
      if (!at->is_object() || !at->contains(key)) return "?";
      at = &(*at)[key];
    }
    return at->is_number_integer() ? std::to_string(at->get<int64_t>()) : "?";
  };
  return number("major") + "." + number("minor") + "." + number("micro");
}

}  // namespace

std::optional<QmpMessage> parse_qmp_message(std::string_view line) {
  const Json message = parse_json(line);
  if (!message.is_object()) return std::nullopt;
  if (const auto greeting = message.find("QMP"); greeting != message.end())
    return QmpMessage{QmpKind::greeting, version_of(*greeting)};
  if (const auto name = string_in(message, "event")) return QmpMessage{QmpKind::event, *name};
  if (const auto error = message.find("error"); error != message.end())
    return QmpMessage{QmpKind::error, string_in(*error, "desc").value_or("an error without a description")};
  if (const auto result = message.find("return"); result != message.end())
    return QmpMessage{QmpKind::result, dump(*result)};
  return std::nullopt;
}

bool QmpLines::feed(std::string_view bytes) {
  const std::size_t first_end = bytes.find('\n');
  if (open_ + std::min(first_end, bytes.size()) > kLineMax) return false;
  const std::size_t last_end = bytes.rfind('\n');
  open_ = last_end == std::string_view::npos ? open_ + bytes.size() : bytes.size() - last_end - 1;
  held_ += bytes;
  return open_ <= kLineMax;
}

std::optional<std::string> QmpLines::next() {
  for (;;) {
    const std::size_t end = held_.find('\n', scanned_);
    if (end == std::string::npos) {
      scanned_ = held_.size();
      return std::nullopt;
    }
    std::string line = held_.substr(0, end);
    held_.erase(0, end + 1);
    scanned_ = 0;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) return line;
  }
}

std::optional<std::vector<Memdev>> parse_memdevs(std::string_view json) {
  const Json list = parse_json(json);
  if (!list.is_array()) return std::nullopt;
  std::vector<Memdev> out;
  for (const Json& entry : list) {
    if (!entry.is_object()) return std::nullopt;
    Memdev memdev;
    memdev.id = string_in(entry, "id").value_or("");  // backends of -mem-path have none
    const auto size = entry.find("size");
    const auto share = entry.find("share");
    if (size == entry.end() || !size->is_number_unsigned()) return std::nullopt;
    memdev.size = size->get<uint64_t>();
    if (share != entry.end()) {
      if (!share->is_boolean()) return std::nullopt;
      memdev.share = share->get<bool>();
    }
    if (const auto nodes = entry.find("host-nodes"); nodes != entry.end() && nodes->is_array())
      for (const Json& node : *nodes)
        if (node.is_number_integer()) memdev.host_nodes.push_back(node.get<int64_t>());
    out.push_back(std::move(memdev));
  }
  return out;
}

std::optional<std::vector<std::pair<std::string, bool>>> parse_capability_states(std::string_view json) {
  const Json list = parse_json(json);
  if (!list.is_array()) return std::nullopt;
  std::vector<std::pair<std::string, bool>> out;
  for (const Json& entry : list) {
    auto name = string_in(entry, "capability");
    if (!name) return std::nullopt;
    const auto state = entry.find("state");
    if (state == entry.end() || !state->is_boolean()) return std::nullopt;
    out.emplace_back(std::move(*name), state->get<bool>());
  }
  return out;
}

std::optional<bool> parse_qmp_bool(std::string_view json) {
  const Json value = parse_json(json);
  if (!value.is_boolean()) return std::nullopt;
  return value.get<bool>();
}

std::optional<std::string> parse_qmp_string(std::string_view json) {
  const Json value = parse_json(json);
  if (!value.is_string()) return std::nullopt;
  return value.get<std::string>();
}

std::optional<std::string> parse_qmp_member(std::string_view json, const char* member) {
  return string_in(parse_json(json), member);
}

bool has_qmp_member(std::string_view json, const char* member) {
  const Json value = parse_json(json);
  return value.is_object() && value.contains(member);
}

std::string qmp_quote(std::string_view text) {
  return dump(Json(text));
}

// Lines look like "    0000000004000000-0000000007ffffff (prio 0, ram): far"; a region's parent is the last
// line before it that is indented less. Lines of another form separate the trees.
std::optional<uint64_t> find_region_offset(std::string_view mtree, std::string_view name) {
  struct Level {
    std::size_t indent;
    uint64_t begin;
  };
  std::vector<Level> levels;
  std::optional<uint64_t> found;
  while (!mtree.empty()) {
    const std::size_t end = mtree.find('\n');
    std::string_view line = mtree.substr(0, end);
    mtree.remove_prefix(end == std::string_view::npos ? mtree.size() : end + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    const std::size_t indent = std::min(line.find_first_not_of(' '), line.size());
    line.remove_prefix(indent);
    uint64_t begin = 0;
    const auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), begin, 16);
    const std::size_t kind = line.find("): ");
    if (error != std::errc{} || rest == line.data() + line.size() || *rest != '-' ||
        kind == std::string_view::npos) {
      levels.clear();
      continue;
    }
    while (!levels.empty() && levels.back().indent >= indent) levels.pop_back();
    // QEMU leaves out what is not visible: a gap of more than one level hides the parent.
    const bool parent_shown = levels.empty() || levels.back().indent + 2 == indent;
    const uint64_t parent = levels.empty() ? begin : levels.back().begin;
    std::string_view region = line.substr(kind + 3);
    if (!region.starts_with("alias ")) {
      if (region.ends_with(" [disabled]")) region.remove_suffix(11);
      if (region == name) {
        if (!parent_shown || begin < parent || (found && *found != begin - parent)) return std::nullopt;
        found = begin - parent;
      }
    }
    levels.push_back({indent, begin});
  }
  return found;
}

}  // namespace migrx

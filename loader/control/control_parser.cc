#include "loader/control/control_parser.h"

#include <algorithm>
#include <set>

namespace migrx {
namespace {

using Json = nlohmann::json;

// What the JSON library lets pass: an object's key that comes twice, of which the last would count, and
// nesting of any depth.
class Strictness {
 public:
  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
        keys_.emplace_back();
        [[fallthrough]];
      case Json::parse_event_t::array_start:
        too_deep = too_deep || depth >= ControlParser::kDepthMax;
        break;
      case Json::parse_event_t::key:
        if (!keys_.empty() && !keys_.back().insert(parsed.get<std::string>()).second)
          twice = parsed.get<std::string>();
        break;
      case Json::parse_event_t::object_end:
        if (!keys_.empty()) keys_.pop_back();
        break;
      default:
        break;
    }
    return !too_deep;  // what lies deeper is left out, and the line refused
  }
  bool too_deep = false;
  std::optional<std::string> twice;

 private:
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

ControlError malformed(std::string sentence) {
  return {control_class::kMalformed, std::move(sentence)};
}

std::optional<ControlError> take_members(Json& message, ControlLine& out) {
  if (!message.is_object()) return malformed("a request is a JSON object with \"execute\"");
  // First of all, so that an error bears it, too.
  if (const auto id = message.find("id"); id != message.end()) out.id = *id;
  for (const auto& [key, value] : message.items())
    if (key != "execute" && key != "arguments" && key != "id")
      return malformed("a request has no key \"" + key + "\": it has execute, arguments and id");
  const auto command = message.find("execute");
  if (command == message.end()) return malformed("a request names its command: {\"execute\": NAME}");
  if (!command->is_string()) return malformed("\"execute\" is a string: the command's name");
  if (const auto arguments = message.find("arguments"); arguments != message.end()) {
    if (!arguments->is_object()) return malformed("\"arguments\" is an object: {NAME: VALUE, ...}");
    out.arguments = std::move(*arguments);
  }
  out.command = command->get<std::string>();
  return std::nullopt;
}

}  // namespace

ControlLine parse_control_line(std::string_view line) {
  ControlLine out;
  Strictness strictness;
  Json message;
  try {
    message = Json::parse(line, [&](int depth, Json::parse_event_t event, Json& parsed) {
      return strictness(depth, event, parsed);
    });
  } catch (const Json::parse_error& error) {
    out.error = malformed("the line is no JSON from byte " + std::to_string(error.byte) + " on");
    return out;
  } catch (const Json::exception&) {  // a number that no double can hold
    out.error = malformed("the line is no JSON: a number is out of range");
    return out;
  }
  if (strictness.too_deep) {
    out.error = malformed("the request is nested deeper than " + std::to_string(ControlParser::kDepthMax));
    return out;
  }
  out.error = take_members(message, out);
  if (!out.error && strictness.twice)
    out.error = malformed("the key \"" + *strictness.twice + "\" is there twice");
  return out;
}

std::string ControlParser::feed(std::string_view bytes, std::vector<Descriptor> files) {
  if (bytes.empty()) return files.empty() ? std::string{} : "descriptors came without a request";
  // Before anything of it could be a request.
  if (files_.size() + files.size() > kDescriptorsMax)
    return "more than " + std::to_string(kDescriptorsMax) + " descriptors wait for the end of their request";
  held_.erase(0, taken_);
  begin_ += taken_;
  taken_ = 0;
  std::size_t at = 0;
  for (std::size_t end; (end = bytes.find('\n', at)) != std::string_view::npos; at = end + 1) {
    if (open_ + end - at > kLineMax) break;
    open_ = 0;
    ++complete_;
  }
  const std::size_t more = std::min(bytes.find('\n', at), bytes.size()) - at;
  if (open_ + more > kLineMax) {
    held_ += bytes.substr(0, at);
    return "a line is longer than " + std::to_string(kLineMax) + " bytes";
  }
  open_ += more;
  held_ += bytes;
  const uint64_t place = begin_ + held_.size() - 1;
  for (Descriptor& file : files) files_.emplace_back(place, std::move(file));
  return {};
}

std::optional<ControlLine> ControlParser::next() {
  while (complete_ > 0) {
    const std::size_t end = held_.find('\n', taken_);
    std::string_view line(held_.data() + taken_, end - taken_);
    taken_ = end + 1;
    --complete_;
    std::vector<Descriptor> files;
    while (!files_.empty() && files_.front().first < begin_ + taken_) {
      files.push_back(std::move(files_.front().second));
      files_.pop_front();
    }
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    ControlLine out = parse_control_line(line);
    out.files = std::move(files);
    return out;
  }
  return std::nullopt;
}

}  // namespace migrx

// What a client sends to a control socket: bytes to lines, lines to requests, requests to answers. Input: a
// byte of piece size, a byte that says which pieces bring a descriptor, the bytes.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "loader/control/control_message.h"
#include "loader/control/control_parser.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using namespace migrx;
using Json = nlohmann::json;

void require(bool condition) {
  if (!condition) std::abort();
}

// The same in the plainest way: the lines that are not blank, up to the first that is too long.
std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> out;
  for (std::size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    std::string_view line = text.substr(0, end);
    if (line.size() > ControlParser::kLineMax) break;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t") != std::string_view::npos) out.emplace_back(line);
  }
  return out;
}

int depth_of(const Json& value) {
  int deepest = 0;
  if (value.is_structured())
    for (const Json& inner : value) deepest = std::max(deepest, depth_of(inner));
  return value.is_structured() ? deepest + 1 : 0;
}

void check(const ControlLine& line, const std::string& text) {
  const std::string answer =
      line.error ? error_line(*line.error, line.id) : return_line(line.arguments, line.id);
  require(std::count(answer.begin(), answer.end(), '\n') == 1 && answer.back() == '\n');
  const Json read = Json::parse(answer);
  require(read.contains("id") == line.id.has_value());
  if (line.error) return;
  // What a library that lets more pass makes of it.
  const Json plain = Json::parse(text);
  require(plain.at("execute") == line.command);
  require(line.arguments.is_object() && plain.value("arguments", Json::object()) == line.arguments);
  require(depth_of(plain) <= ControlParser::kDepthMax);
  for (const auto& [key, value] : plain.items())
    require(key == "execute" || key == "arguments" || key == "id");
}

}  // namespace

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  const auto input = [](int step, int files, std::string_view text) {
    std::vector<std::byte> out{static_cast<std::byte>(step), static_cast<std::byte>(files)};
    for (const char c : text) out.push_back(static_cast<std::byte>(c));
    return out;
  };
  return {
      input(
          200, 0,
          "{\"execute\": \"qmp_capabilities\"}\r\n\r\n{\"execute\": \"session-add\", \"arguments\": "
          "{\"ram\": "
          "[\"mem=fd:0,size=64M\"], \"multifd-channels\": 8, \"no-handoff\": true, \"stall-timeout\": 2.5}, "
          "\"id\": {\"a\": [null, 1e3]}}\n{\"execute\": \"query-sessions\", \"id\": "
          "\"\\u00e9\\ud83d\\ude00\"}\n"),
      input(7, 3,
            "{\"execute\": \"session-add\", \"arguments\": {\"ram\": [\"mem=fd:0\", \"vram=fd:1\"]}}\n"
            "{\"execute\": \"session-cancel\", \"arguments\": {\"id\": \"s1\"}}\n"),
      input(90, 1,
            "{\"execute\": \"a\", \"execute\": \"b\"}\n{\"execute\": 1}\n[]\n{\"arguments\": {}}\nquit\n"),
      input(255, 0,
            "{\"execute\": \"a\", \"arguments\": {\"x\": [[[[[[[[[[[[[[[[[[{\"y\": 1}]]]]]]]]]]]]]]]]]]}}\n"
            "{\"execute\": \"a\", \"arguments\": {\"x\": [[[[[[[[[[[[1]]]]]]]]]]]]}, \"id\": -1}\n"),
  };
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t step = 1 + std::size_t{data[0]} * 4;
  const uint8_t with_file = data[1];
  const std::string_view text{reinterpret_cast<const char*>(data) + 2, size - 2};

  const std::vector<std::string> expected = lines_of(text);
  ControlParser parser;
  std::size_t found = 0;
  std::size_t files_sent = 0;
  std::size_t files_taken = 0;
  bool over = false;
  for (std::size_t at = 0, piece = 0; at < text.size() && !over; at += step, ++piece) {
    std::vector<Descriptor> files;
    if (((with_file >> piece % 8) & 1) != 0) files.emplace_back(::dup(STDERR_FILENO));
    files_sent += files.size();
    over = !parser.feed(text.substr(at, step), std::move(files)).empty();
    while (const auto line = parser.next()) {
      require(found < expected.size());
      check(*line, expected[found]);
      files_taken += line->files.size();
      ++found;
    }
    require(!parser.ready());
  }
  require(files_taken <= files_sent);
  if (!over) require(found == expected.size());
  return 0;
}

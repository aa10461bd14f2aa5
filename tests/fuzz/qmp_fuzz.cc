// What a destination QEMU's monitor answers: bytes to lines, lines to messages, values of "return", the
// memory tree. Input: a byte of piece size, a byte of which three bits choose the region's name, the bytes.
#include <array>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "loader/destination/qmp_message.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using namespace migrx;

void require(bool condition) {
  if (!condition) std::abort();
}

constexpr std::array<std::string_view, 8> kRegions{"pc.ram", "ram",  "far", "mem0",
                                                   "system", "vram", "",    "a\"b"};

void read_value(std::string_view json, std::string_view region) {
  if (const auto memdevs = parse_memdevs(json))
    for (const Memdev& memdev : *memdevs) require(memdev.host_nodes.size() <= json.size());
  if (const auto states = parse_capability_states(json)) require(states->size() <= json.size());
  if (const auto text = parse_qmp_string(json)) {
    // What was read can be said, on one line, and is then the same.
    const std::string quoted = qmp_quote(*text);
    require(quoted.find('\n') == std::string::npos);
    require(parse_qmp_string(quoted) == text);
    if (const auto offset = find_region_offset(*text, region))
      require(text->find(region) != std::string::npos && *offset <= UINT64_MAX);
  }
  if (parse_qmp_member(json, "status").has_value()) require(has_qmp_member(json, "status"));
}

// The same in the plainest way.
std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> out;
  for (std::size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) out.emplace_back(line);
  }
  return out;
}

}  // namespace

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  const auto input = [](int step, int region, std::string_view text) {
    std::vector<std::byte> out{static_cast<std::byte>(step), static_cast<std::byte>(region)};
    for (const char c : text) out.push_back(static_cast<std::byte>(c));
    return out;
  };
  return {
      input(200, 0,
            "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \"package\": "
            "\"\"}, "
            "\"capabilities\": [\"oob\"]}}\r\n{\"return\": {}}\r\n"
            "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"MIGRATION\", \"data\": "
            "{\"status\": \"setup\"}}\r\n\r\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n"),
      input(3, 0,
            "{\"return\": [{\"prealloc\": false, \"host-nodes\": [0, 1], \"size\": 1073741824, \"share\": "
            "true, "
            "\"id\": \"mem0\", \"policy\": \"bind\"}, {\"size\": 4096, \"share\": false}]}\n"
            "{\"return\": [{\"capability\": \"multifd\", \"state\": true}, {\"capability\": \"xbzrle\", "
            "\"state\": false}]}\n{\"return\": {\"status\": \"inmigrate\", \"running\": false}}\n"),
      input(90, 2,
            "{\"return\": \"address-space: memory\\r\\n  0000000000000000-ffffffffffffffff (prio 0, i/o): "
            "system\\r\\n    0000000000000000-0000000003ffffff (prio 0, ram): pc.ram\\r\\n      "
            "0000000000001000-0000000003ffffff (prio 0, ram): far [disabled]\\r\\n    "
            "0000000000000000-0000000000000fff (prio 1, ram): alias a @pc.ram 0-fff\\r\\n\"}\r\n"),
      input(255, 1,
            "{\"return\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{\"a\": [1, 2.5e9, null, "
            "\"\\u00e9\\ud83d\\ude00\"]}"
            "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}\n"),
  };
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t step = 1 + std::size_t{data[0]} * 4;
  const std::string_view region = kRegions[data[1] % kRegions.size()];
  const std::string_view text{reinterpret_cast<const char*>(data) + 2, size - 2};

  QmpLines lines;
  std::vector<std::string> found;
  for (std::size_t at = 0; at < text.size(); at += step) {
    require(lines.feed(text.substr(at, step)));
    while (const auto line = lines.next()) found.push_back(*line);
  }
  require(found == lines_of(text));
  for (const std::string& line : found) {
    const auto message = parse_qmp_message(line);
    if (!message.has_value()) continue;
    // A value was read once, so it can be read again.
    if (message->kind == QmpKind::result)
      require(parse_qmp_message("{\"return\":" + message->text + "}").has_value());
    if (message->kind == QmpKind::result) read_value(message->text, region);
  }
  read_value(text, region);
  (void)find_region_offset(text, region);
  return 0;
}

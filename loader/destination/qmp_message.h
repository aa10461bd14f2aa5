// QEMU's machine protocol as bytes: lines in, messages out (QEMU docs/interop/qmp-spec.txt). The peer is a
// process of this host, but its answers are checked like anybody's: lines have a bound, nesting has one, and
// what is not JSON ends the conversation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace migrx {

enum class QmpKind : uint8_t {
  greeting,  // text: QEMU's version, "10.0.2"
  event,     // text: its name
  result,    // text: the value of "return" as JSON
  error,     // text: the description
};
struct QmpMessage {
  QmpKind kind = QmpKind::event;
  std::string text;
};

// One line without its end. nullopt: no message of QMP.
[[nodiscard]] std::optional<QmpMessage> parse_qmp_message(std::string_view line);

// Cuts what a socket gives into lines. Holds at most kLineMax bytes of a line that has no end yet, and the
// lines that nobody has taken.
class QmpLines {
 public:
  // `info mtree` of a machine with hundreds of devices is some 200 KiB.
  static constexpr std::size_t kLineMax = 4 << 20;

  // False: a line is longer than kLineMax; the conversation is over.
  [[nodiscard]] bool feed(std::string_view bytes);
  // The next complete line that is not empty, without its end.
  [[nodiscard]] std::optional<std::string> next();

 private:
  std::string held_;
  std::size_t scanned_ = 0;  // no end of line before it
  std::size_t open_ = 0;     // bytes after the last end of line
};

// ---- Values of "return" ----

struct Memdev {
  std::string id;
  uint64_t size = 0;
  std::optional<bool> share;        // QEMU before 6.1 does not say it
  std::vector<int64_t> host_nodes;  // empty: no binding
};
// query-memdev. nullopt: not its form; so with the others.
[[nodiscard]] std::optional<std::vector<Memdev>> parse_memdevs(std::string_view json);
// query-migrate-capabilities: name and state.
[[nodiscard]] std::optional<std::vector<std::pair<std::string, bool>>> parse_capability_states(
    std::string_view json);
// A value that is true or false: qom-get of such a property.
[[nodiscard]] std::optional<bool> parse_qmp_bool(std::string_view json);
// A value that is a string: qom-get, human-monitor-command.
[[nodiscard]] std::optional<std::string> parse_qmp_string(std::string_view json);
// The string `member` of an object: query-status, query-migrate.
[[nodiscard]] std::optional<std::string> parse_qmp_member(std::string_view json, const char* member);
[[nodiscard]] bool has_qmp_member(std::string_view json, const char* member);
// "text" as a JSON string, for arguments.
[[nodiscard]] std::string qmp_quote(std::string_view text);

// HMP `info mtree`: where in its parent region, in bytes, the region `name` begins: QEMU's mr->addr. A region
// without a parent begins at 0. nullopt: there is no such region, its parent is not shown, or it stands in
// several places that differ.
[[nodiscard]] std::optional<uint64_t> find_region_offset(std::string_view mtree, std::string_view name);

}  // namespace migrx

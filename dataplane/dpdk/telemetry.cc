#include "dataplane/dpdk/telemetry.h"

#include <rte_errno.h>
#include <rte_telemetry.h>
#include <rte_version.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <mutex>

#include "dataplane/dpdk/eal.h"

namespace migrx {
namespace {

using Pages = std::vector<TelemetryPage>;

// DPDK's callbacks have no argument of ours, and its commands live as long as the process.
struct Board {
  std::mutex mutex;  // held for the copy of a pointer only
  std::shared_ptr<const Pages> pages;
};
Board& board() {
  static Board it;
  return it;
}

std::string name_of(std::string name) {
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
}

int add_number(rte_tel_data* data, const char* name, uint64_t value) {
#if RTE_VERSION >= RTE_VERSION_NUM(23, 3, 0, 0)
  return rte_tel_data_add_dict_uint(data, name, value);
#else
  return rte_tel_data_add_dict_u64(data, name, value);
#endif
}

// What has no room is left out: DPDK bounds names, strings and the number of fields.
void add_fields(rte_tel_data* data, const TelemetryFields& fields) {
  for (const auto& [name, value] : fields) {
    const std::string key = name_of(name);
    if (const auto* const number = std::get_if<uint64_t>(&value))
      (void)add_number(data, key.c_str(), *number);
    else
      (void)rte_tel_data_add_dict_string(data, key.c_str(), std::get<std::string>(value).c_str());
  }
}

// On a thread of DPDK's.
int answer(const char* command, const char* parameter, rte_tel_data* data) {
  std::shared_ptr<const Pages> pages;
  {
    const std::lock_guard lock(board().mutex);
    pages = board().pages;
  }
  rte_tel_data_start_dict(data);
  if (pages == nullptr) return 0;
  const auto page = std::find_if(pages->begin(), pages->end(),
                                 [&](const TelemetryPage& one) { return one.command == command; });
  if (page == pages->end()) return 0;
  const bool all = parameter == nullptr || *parameter == '\0';
  std::size_t rows = 0;
  for (const auto& [name, fields] : page->rows) {
    if (name.empty()) {
      if (all) add_fields(data, fields);
      continue;
    }
    const std::string key = name_of(name);
    if (all ? ++rows > Telemetry::kRowsMax : key != parameter) continue;
    rte_tel_data* const row = rte_tel_data_alloc();
    if (row == nullptr) return -ENOMEM;
    rte_tel_data_start_dict(row);
    add_fields(row, fields);
    // keep = 0: it is freed when the answer has been sent, unless it was not taken.
    if (rte_tel_data_add_dict_container(data, key.c_str(), row, 0) != 0) rte_tel_data_free(row);
  }
  return 0;
}

}  // namespace

Telemetry::Telemetry(const std::vector<std::pair<std::string, std::string>>& commands) {
  for (const auto& [command, help] : commands) {
    const int result = rte_telemetry_register_cmd(command.c_str(), answer, help.c_str());
    if (result != 0 && result != -EEXIST)
      throw DpdkError("DPDK does not take the telemetry command " + command + ": " + rte_strerror(-result));
  }
}

Telemetry::~Telemetry() {
  publish({});
}

void Telemetry::publish(std::vector<TelemetryPage> pages) {
  auto fresh = std::make_shared<const Pages>(std::move(pages));
  const std::lock_guard lock(board().mutex);
  board().pages.swap(fresh);
}

}  // namespace migrx

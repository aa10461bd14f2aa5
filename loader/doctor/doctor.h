// Is this host ready? All checks over one set of facts, and their findings as text or JSON.
#pragma once

#include <string>
#include <vector>

#include "loader/doctor/check.h"

namespace migrx {

struct Finding {
  const Check* check = nullptr;
  CheckVerdict verdict;
};

// Every check, in the order in which they are told.
[[nodiscard]] std::vector<const Check*> all_checks();

// Plans the placement and runs all checks. Reads nothing but `host`, and the certificate of the wish.
[[nodiscard]] std::vector<Finding> examine(const HostFacts& host, const DoctorWish& wish, int64_t now_unix_s);

// Text for a person: whatever is not in order comes with its reason and its command; `all` lists
// the rest, too.
[[nodiscard]] std::string findings_text(const std::vector<Finding>& findings, bool all);
[[nodiscard]] std::string findings_json(const std::vector<Finding>& findings,
                                        const std::string& program_version);

// 0: ready. 1: at least one check failed, or, when `strict`, warned.
[[nodiscard]] int doctor_status(const std::vector<Finding>& findings, bool strict);

}  // namespace migrx

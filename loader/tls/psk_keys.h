// keys.psk, as psktool writes it and as QEMU and GnuTLS read it: a line "user:hex" for each
// user, or "#hex-of-user:hex".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace migrx {

// Immutable once parsed; any thread. Wiped when it goes.
class PskKeys {
 public:
  PskKeys() = default;
  ~PskKeys();
  PskKeys(const PskKeys&) = delete;
  PskKeys& operator=(const PskKeys&) = delete;

  // Empty: fine. Otherwise what is wrong with the text, and in which line; no secret is in it. Lines without
  // a colon and comments are skipped; of two lines for a user the first counts.
  [[nodiscard]] std::string parse(const std::string& text);
  // nullptr: no such user.
  [[nodiscard]] const std::vector<uint8_t>* find(const std::string& user) const;

 private:
  std::map<std::string, std::vector<uint8_t>> keys_;
};

}  // namespace migrx

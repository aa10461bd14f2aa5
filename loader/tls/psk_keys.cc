#include "loader/tls/psk_keys.h"

#include <openssl/crypto.h>

#include <string_view>
#include <utility>

namespace migrx {
namespace {

int digit_of(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// False: no even number of hexadecimal digits, or none at all.
bool decode(std::string_view hex, std::vector<uint8_t>& out) {
  if (hex.empty() || hex.size() % 2 != 0) return false;
  out.reserve(hex.size() / 2);  // no copy of a key stays behind
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int high = digit_of(hex[i]);
    const int low = digit_of(hex[i + 1]);
    if (high < 0 || low < 0) return false;
    out.push_back(static_cast<uint8_t>(high << 4 | low));
  }
  return true;
}

}  // namespace

PskKeys::~PskKeys() {
  for (auto& [user, key] : keys_) OPENSSL_cleanse(key.data(), key.size());
}

std::string PskKeys::parse(const std::string& text) {
  std::string_view rest = text;
  for (unsigned number = 1; !rest.empty(); ++number) {
    const std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t'))
      line.remove_suffix(1);
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string user(line.substr(0, colon));
    if (user.starts_with('#')) {
      std::vector<uint8_t> name;
      if (!decode(std::string_view(user).substr(1), name)) continue;  // a comment
      user.assign(name.begin(), name.end());
    }
    std::vector<uint8_t> key;
    const bool good = decode(line.substr(colon + 1), key);
    if (user.empty() || !good) {
      OPENSSL_cleanse(key.data(), key.size());
      return "line " + std::to_string(number) + ": expected USER:KEY with the key in hexadecimal digits";
    }
    if (!keys_.try_emplace(std::move(user), std::move(key)).second) OPENSSL_cleanse(key.data(), key.size());
  }
  return keys_.empty() ? "no key in it: make one with psktool" : "";
}

const std::vector<uint8_t>* PskKeys::find(const std::string& user) const {
  const auto found = keys_.find(user);
  return found == keys_.end() ? nullptr : &found->second;
}

}  // namespace migrx

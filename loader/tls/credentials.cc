#include "loader/tls/credentials.h"

#include <fnmatch.h>
#include <gnutls/x509.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "loader/tls/credentials_handles.h"
#include "numa/core_dumps.h"

namespace migrx {
namespace {

// Records are opened by our own record layer, which knows these; TLS 1.0 and 1.1 have no such suite.
constexpr std::array kCiphers{GNUTLS_CIPHER_AES_256_GCM, GNUTLS_CIPHER_AES_128_GCM,
                              GNUTLS_CIPHER_CHACHA20_POLY1305};
constexpr const char* kDefaultPriority = "NORMAL:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM:+CHACHA20-POLY1305";
constexpr const char* kVersions = ":-VERS-TLS1.0:-VERS-TLS1.1";
constexpr const char* kPskExchanges = ":+ECDHE-PSK:+DHE-PSK:+PSK";
// An external PSK is bound to SHA-256, so AES-256 is out; AES-128 costs a source a third of
// what ChaCha20 does.
constexpr const char* kPskOrder = ":%SERVER_PRECEDENCE";
constexpr std::size_t kFileBytesMax = 4 << 20;
constexpr int kPairsMax = 4;  // server-cert-0.pem to server-cert-3.pem

std::string own_name(TlsCredsOptions::Endpoint endpoint) {
  return endpoint == TlsCredsOptions::Endpoint::server ? "server" : "client";
}

bool exists(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0;
}

std::string read_file(const std::string& path, std::string& out) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return path + ": " + std::strerror(errno);
  out.assign(std::istreambuf_iterator<char>(file), {});
  if (out.size() > kFileBytesMax) return path + ": larger than any certificate file";
  return {};
}

struct Certificates {
  gnutls_x509_crt_t* list = nullptr;
  unsigned count = 0;
  ~Certificates() {
    for (unsigned i = 0; i < count; ++i) gnutls_x509_crt_deinit(list[i]);
    gnutls_free(list);
  }
  Certificates() = default;
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;
};

// A text that may hold a secret.
struct Secret {
  std::string text;
  Secret() = default;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { gnutls_memset(text.data(), 0, text.size()); }
};

gnutls_datum_t datum_of(const std::string& text) noexcept {
  return {reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())),
          static_cast<unsigned>(text.size())};
}

std::string import(const std::string& path, const std::string& text, Certificates& out) {
  const gnutls_datum_t data = datum_of(text);
  const int result = gnutls_x509_crt_list_import2(&out.list, &out.count, &data, GNUTLS_X509_FMT_PEM, 0);
  if (result < 0) return path + ": " + gnutls_strerror(result);
  if (out.count == 0) return path + ": no certificate in it";
  return {};
}

std::string date_of(time_t when) {
  char text[32];
  std::tm tm{};
  ::gmtime_r(&when, &tm);
  (void)std::strftime(text, sizeof text, "%Y-%m-%d", &tm);
  return text;
}

// The checks of QEMU's qcrypto_tls_creds_check_cert(): dates, basic constraints, key usage and purpose.
enum class Role : uint8_t { authority, server, client };
std::string check(gnutls_x509_crt_t certificate, const std::string& path, Role role) {
  const bool is_ca = role == Role::authority;
  const bool is_client = role == Role::client;
  const time_t now = std::time(nullptr);
  const time_t ends = gnutls_x509_crt_get_expiration_time(certificate);
  if (ends < now) return path + ": has expired on " + date_of(ends) + ": make a new certificate";
  const time_t begins = gnutls_x509_crt_get_activation_time(certificate);
  if (begins > now)
    return path + ": is not valid before " + date_of(begins) + ": is this host's clock right?";
  const int ca = gnutls_x509_crt_get_basic_constraints(certificate, nullptr, nullptr, nullptr);
  if (ca > 0 && !is_ca)
    return path + ": is a certificate authority's, not a " + (is_client ? "client's" : "server's");
  if (ca == 0 && is_ca) return path + ": its basic constraints do not say that it is an authority's";
  if (ca < 0 && ca != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
    return path + ": basic constraints: " + gnutls_strerror(ca);
  if (ca == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE && is_ca)
    return path + ": an authority's certificate needs basic constraints (certtool: 'ca' in the template)";
  unsigned usage = 0;
  unsigned critical = 0;
  const int has_usage = gnutls_x509_crt_get_key_usage(certificate, &usage, &critical);
  if (has_usage >= 0 && critical != 0) {
    if (is_ca && (usage & GNUTLS_KEY_KEY_CERT_SIGN) == 0)
      return path + ": its key usage does not permit signing certificates (certtool: 'cert_signing_key')";
    if (!is_ca && (usage & GNUTLS_KEY_DIGITAL_SIGNATURE) == 0)
      return path + ": its key usage does not permit signatures (certtool: 'signing_key')";
  }
  if (is_ca) return {};
  bool serves = false;
  bool any_critical = false;
  bool some = false;
  for (unsigned i = 0;; ++i) {
    char purpose[128];
    std::size_t bytes = sizeof purpose;
    const int result = gnutls_x509_crt_get_key_purpose_oid(certificate, i, purpose, &bytes, &critical);
    if (result < 0) break;
    some = true;
    any_critical = any_critical || critical != 0;
    const char* const wanted = is_client ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
    serves = serves || std::strcmp(purpose, wanted) == 0 || std::strcmp(purpose, GNUTLS_KP_ANY) == 0;
  }
  if (some && any_critical && !serves)
    return path + (is_client ? ": its purpose does not permit a TLS client (certtool: 'tls_www_client')"
                             : ": its purpose does not permit a TLS server (certtool: 'tls_www_server')");
  return {};
}

std::string verify_chain(const Certificates& chain, const std::string& path, const Certificates& authorities,
                         const std::string& authorities_path) {
  unsigned status = 0;
  const int result = gnutls_x509_crt_list_verify(chain.list, chain.count, authorities.list, authorities.count,
                                                 nullptr, 0, 0, &status);
  if (result < 0) return path + ": " + gnutls_strerror(result);
  if (status == 0) return {};
  return path + " against " + authorities_path + ": " + verification_text(status);
}

// The key of the user that a client says it is; its own memory, which GnuTLS frees. 1: no such user, and
// GnuTLS goes on with a random key, so that a client cannot tell who is known.
int find_psk(gnutls_session_t session, const gnutls_datum_t* user, gnutls_datum_t* key) {
  const auto* const keys = static_cast<const PskKeys*>(gnutls_session_get_ptr(session));
  const std::vector<uint8_t>* const found =
      keys->find(std::string(reinterpret_cast<const char*>(user->data), user->size));
  if (found == nullptr) return 1;
  key->data = static_cast<unsigned char*>(gnutls_malloc(found->size()));
  if (key->data == nullptr) return -1;
  key->size = static_cast<unsigned>(found->size());
  std::memcpy(key->data, found->data(), found->size());
  return 0;
}

}  // namespace

std::string parse_tls_creds(const std::string& text, TlsCredsOptions& out, TlsCredsOptions::Endpoint endpoint,
                            const std::string& option) {
  const std::string form =
      option + " " + text + ": expected x509:dir=DIR or psk:dir=DIR with options after commas";
  out = {};
  out.endpoint = endpoint;
  out.option = option;
  if (text.starts_with("x509:"))
    out.kind = TlsCredsOptions::Kind::x509;
  else if (text.starts_with("psk:"))
    out.kind = TlsCredsOptions::Kind::psk;
  else
    return form;
  std::size_t at = text.find(':');
  while (at != std::string::npos) {
    const std::size_t next = text.find(',', at + 1);
    const std::string word = text.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    at = next;
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) return form;
    const std::string name = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    const bool is_x509 = out.kind == TlsCredsOptions::Kind::x509;
    const auto flag = [&](bool& target) {
      if (value != "on" && value != "off") return option + ": " + name + " must be on or off";
      target = value == "on";
      return std::string();
    };
    std::string problem;
    if (name == "dir")
      out.dir = value;
    else if (name == "priority")
      out.priority = value;
    else if (name == "verify-peer" && is_x509)
      problem = flag(out.verify_peer);
    else if (name == "sanity-check" && is_x509)
      problem = flag(out.sanity_check);
    else if (name == "password-file" && is_x509)
      out.password_file = value;
    else if (name == "username" && !is_x509 && endpoint == TlsCredsOptions::Endpoint::client)
      out.username = value;
    else
      problem = option + ": unknown option '" + name + "'";
    if (!problem.empty()) return problem;
  }
  if (out.dir.empty() || out.dir[0] != '/') return option + ": dir= needs an absolute path";
  return {};
}

TlsCredentials::TlsCredentials() : handles_(std::make_unique<Handles>()) {}

TlsCredentials::~TlsCredentials() {
  if (handles_->x509 != nullptr) gnutls_certificate_free_credentials(handles_->x509);
  if (handles_->psk != nullptr) gnutls_psk_free_server_credentials(handles_->psk);
  if (handles_->psk_client != nullptr) gnutls_psk_free_client_credentials(handles_->psk_client);
  if (handles_->priority != nullptr) gnutls_priority_deinit(handles_->priority);
}

std::string TlsCredentials::Lifetime::warning(int64_t now_unix_s) const {
  if (ends_unix_s < now_unix_s)
    return path + " has ended on " + date_of(ends_unix_s) + ", and peers refuse it: renew it";
  if (ends_unix_s - now_unix_s < (ends_unix_s - begins_unix_s) / 3)
    return path + " ends on " + date_of(ends_unix_s) + ", in less than a third of its lifetime: renew it";
  return {};
}

std::vector<std::string> TlsCredentials::files(const TlsCredsOptions& options) {
  const std::string dir = options.dir + "/";
  if (options.kind == TlsCredsOptions::Kind::psk) return {dir + "keys.psk"};
  const std::string own = dir + own_name(options.endpoint);
  std::vector<std::string> names{dir + "ca-cert.pem", dir + "ca-crl.pem", own + "-cert.pem",
                                 own + "-key.pem"};
  for (int i = 0; i < kPairsMax; ++i)
    for (const char* const part : {"-cert-", "-key-"})
      names.push_back(own + part + std::to_string(i) + ".pem");
  if (!options.password_file.empty()) names.push_back(options.password_file);
  return names;
}

std::shared_ptr<const TlsCredentials> TlsCredentials::load(const TlsCredsOptions& options,
                                                           std::string& problem) {
  forbid_core_dumps();
  const std::shared_ptr<TlsCredentials> made(new TlsCredentials);
  made->options_ = options;
  const bool psk = options.kind == TlsCredsOptions::Kind::psk;
  problem = made->set_priority();
  if (!problem.empty()) return nullptr;
  problem = psk ? made->load_psk() : made->load_x509();
  return problem.empty() ? made : nullptr;
}

// What the operator allows, less what the record layer does not know: nothing is added to it.
std::string TlsCredentials::set_priority() {
  const bool psk = options_.kind == TlsCredsOptions::Kind::psk;
  std::string text = (options_.priority.empty() ? std::string(kDefaultPriority) : options_.priority) +
                     (psk ? kPskExchanges : "") + kVersions + (psk ? kPskOrder : "");
  const char* where = nullptr;
  int result = gnutls_priority_init(&handles_->priority, text.c_str(), &where);
  if (result >= 0) {
    const unsigned* allowed = nullptr;
    const int count = gnutls_priority_cipher_list(handles_->priority, &allowed);
    int known = 0;
    for (int i = 0; i < count; ++i) {
      const auto cipher = static_cast<gnutls_cipher_algorithm_t>(allowed[i]);
      if (std::find(kCiphers.begin(), kCiphers.end(), cipher) != kCiphers.end())
        ++known;
      else
        text += std::string(":-") + gnutls_cipher_get_name(cipher);
    }
    if (known == 0)
      return "priority " + options_.priority +
             " allows none of the ciphers that migrx reads: AES-256-GCM, AES-128-GCM, CHACHA20-POLY1305";
    if (known == count) return {};
    gnutls_priority_deinit(std::exchange(handles_->priority, nullptr));
    result = gnutls_priority_init(&handles_->priority, text.c_str(), &where);
  }
  if (result >= 0) return {};
  return "priority " + options_.priority + (where != nullptr ? std::string(" at ") + where : "") + ": " +
         gnutls_strerror(result);
}

std::string TlsCredentials::load_psk() {
  const std::string path = options_.dir + "/keys.psk";
  if (!exists(path))
    return path + ": " + std::strerror(errno) + ": make it with psktool, or name another dir=";
  Secret secret;
  if (std::string problem = read_file(path, secret.text); !problem.empty()) return problem;
  if (const std::string problem = handles_->psk_keys.parse(secret.text); !problem.empty())
    return path + ": " + problem;
  if (options_.endpoint == TlsCredsOptions::Endpoint::client) {
    const std::vector<uint8_t>* const key = handles_->psk_keys.find(options_.username);
    if (key == nullptr)
      return path + ": no key of user " + options_.username + " (username= in " + options_.option + ")";
    const gnutls_datum_t data{const_cast<unsigned char*>(key->data()), static_cast<unsigned>(key->size())};
    int result = gnutls_psk_allocate_client_credentials(&handles_->psk_client);
    if (result >= 0)
      result = gnutls_psk_set_client_credentials(handles_->psk_client, options_.username.c_str(), &data,
                                                 GNUTLS_PSK_KEY_RAW);
    return result < 0 ? path + ": " + gnutls_strerror(result) : "";
  }
  if (const int result = gnutls_psk_allocate_server_credentials(&handles_->psk); result < 0)
    return options_.option + ": " + gnutls_strerror(result);
  gnutls_psk_set_server_credentials_function2(handles_->psk, find_psk);
  return {};
}

std::string TlsCredentials::load_x509() {
  const auto path = [this](const std::string& name) { return options_.dir + "/" + name; };
  if (const int result = gnutls_certificate_allocate_credentials(&handles_->x509); result < 0)
    return options_.option + ": " + gnutls_strerror(result);
  const std::string ca = path("ca-cert.pem");
  std::string authorities;
  if (std::string problem = read_file(ca, authorities); !problem.empty()) return problem;
  const gnutls_datum_t trust = datum_of(authorities);
  if (const int result = gnutls_certificate_set_x509_trust_mem(handles_->x509, &trust, GNUTLS_X509_FMT_PEM);
      result < 0)
    return ca + ": " + gnutls_strerror(result);
  Secret password;
  if (!options_.password_file.empty()) {
    std::string& text = password.text;
    if (std::string problem = read_file(options_.password_file, text); !problem.empty()) return problem;
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  }
  // Numbered pairs (QEMU 10.2), up to the first gap, or the plain one.
  std::vector<std::pair<std::string, std::string>> pairs;
  const std::string own = path(own_name(options_.endpoint));
  for (int i = 0; i < kPairsMax; ++i) {
    const std::string number = std::to_string(i);
    std::pair<std::string, std::string> pair{own + "-cert-" + number + ".pem",
                                             own + "-key-" + number + ".pem"};
    if (!exists(pair.first) && !exists(pair.second)) break;
    pairs.push_back(std::move(pair));
  }
  // A client may do without, when the server does not ask for more.
  if (pairs.empty() && (options_.endpoint == TlsCredsOptions::Endpoint::server || exists(own + "-cert.pem") ||
                        exists(own + "-key.pem")))
    pairs.emplace_back(own + "-cert.pem", own + "-key.pem");
  for (const auto& [certificate, key] : pairs)
    if (std::string problem = load_pair(certificate, key, authorities, password.text); !problem.empty())
      return problem;
  const std::string revoked = path("ca-crl.pem");
  if (!exists(revoked)) return {};
  std::string list;
  if (std::string problem = read_file(revoked, list); !problem.empty()) return problem;
  const gnutls_datum_t data = datum_of(list);
  const int result = gnutls_certificate_set_x509_crl_mem(handles_->x509, &data, GNUTLS_X509_FMT_PEM);
  if (result < 0) return revoked + ": " + gnutls_strerror(result);
  has_revocations_ = true;
  return {};
}

std::string TlsCredentials::load_pair(const std::string& certificate_path, const std::string& key_path,
                                      const std::string& authorities, const std::string& password) {
  for (const std::string& file : {certificate_path, key_path})
    if (!exists(file)) return file + ": " + std::strerror(errno) + ": a certificate and its key go together";
  std::string certificate;
  Secret key;
  if (std::string problem = read_file(certificate_path, certificate); !problem.empty()) return problem;
  if (std::string problem = read_file(key_path, key.text); !problem.empty()) return problem;
  const std::string authorities_path = options_.dir + "/ca-cert.pem";
  Certificates trusted;
  Certificates chain;
  if (std::string problem = import(authorities_path, authorities, trusted); !problem.empty()) return problem;
  if (std::string problem = import(certificate_path, certificate, chain); !problem.empty()) return problem;
  if (options_.sanity_check) {
    const Role role = options_.endpoint == TlsCredsOptions::Endpoint::server ? Role::server : Role::client;
    if (std::string problem = check(chain.list[0], certificate_path, role); !problem.empty()) return problem;
    for (unsigned i = 0; i < trusted.count; ++i)
      if (std::string problem = check(trusted.list[i], authorities_path, Role::authority); !problem.empty())
        return problem;
    if (std::string problem = verify_chain(chain, certificate_path, trusted, authorities_path);
        !problem.empty())
      return problem;
  }
  const gnutls_datum_t certificate_data = datum_of(certificate);
  const gnutls_datum_t key_data = datum_of(key.text);
  const int result =
      gnutls_certificate_set_x509_key_mem2(handles_->x509, &certificate_data, &key_data, GNUTLS_X509_FMT_PEM,
                                           options_.password_file.empty() ? nullptr : password.c_str(), 0);
  if (result == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
    return key_path + ": is not the key of " + certificate_path;
  if (result < 0) return key_path + ": " + gnutls_strerror(result);
  for (const Certificates* const some : {&chain, &trusted})
    for (unsigned i = 0; i < some->count; ++i)
      lifetimes_.push_back({some == &chain ? certificate_path : authorities_path,
                            gnutls_x509_crt_get_activation_time(some->list[i]),
                            gnutls_x509_crt_get_expiration_time(some->list[i])});
  return {};
}

std::string TlsAuthz::set(const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    if (text.starts_with("listfile:")) {
      list_file_ = text.substr(std::strlen("listfile:"));
      std::vector<Rule> rules;
      bool allow_others = false;
      if (std::string problem = read_list(list_file_, rules, allow_others); !problem.empty())
        return "--tls-authz " + text + ": " + problem;
    } else {
      rules_.push_back({text, text.find_first_of("*?[") != std::string::npos, true});
    }
    any_ = false;
  }
  return {};
}

// QEMU authz/listfile.c: {"policy": "deny", "rules": [{"match": "…", "policy": "allow", "format": "glob"}]}.
std::string TlsAuthz::read_list(const std::string& path, std::vector<Rule>& rules, bool& allow_others) {
  std::string text;
  if (std::string problem = read_file(path, text); !problem.empty()) return problem;
  const nlohmann::json list = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto policy = [](const nlohmann::json& object, const char* otherwise, bool& allow) {
    const nlohmann::json value = object.value("policy", nlohmann::json(otherwise));
    allow = value == "allow";
    return value == "allow" || value == "deny";
  };
  if (!list.is_object()) return path + ": expected a JSON object with policy and rules";
  if (!policy(list, "deny", allow_others)) return path + ": policy must be allow or deny";
  const nlohmann::json entries = list.value("rules", nlohmann::json::array());
  if (!entries.is_array()) return path + ": rules must be a list";
  for (const nlohmann::json& entry : entries) {
    Rule rule;
    if (!entry.is_object() || !entry.contains("match") || !entry["match"].is_string() ||
        !policy(entry, "", rule.allow))
      return path + ": each rule needs match, and policy allow or deny";
    rule.match = entry["match"].get<std::string>();
    const nlohmann::json format = entry.value("format", nlohmann::json("exact"));
    if (format != "exact" && format != "glob") return path + ": format must be exact or glob";
    rule.glob = format == "glob";
    rules.push_back(std::move(rule));
  }
  return {};
}

bool TlsAuthz::allows(const std::string& distinguished_name) const {
  if (any_) return true;
  const auto fits = [&](const Rule& rule) {
    return rule.glob ? ::fnmatch(rule.match.c_str(), distinguished_name.c_str(), 0) == 0
                     : rule.match == distinguished_name;
  };
  for (const Rule& rule : rules_)
    if (fits(rule)) return rule.allow;
  if (list_file_.empty()) return false;
  std::vector<Rule> rules;
  bool allow_others = false;
  if (!read_list(list_file_, rules, allow_others).empty()) return false;
  for (const Rule& rule : rules)
    if (fits(rule)) return rule.allow;
  return allow_others;
}

}  // namespace migrx

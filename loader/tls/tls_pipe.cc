#include "loader/tls/tls_pipe.h"

#include <gnutls/gnutls.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace migrx {

struct TlsPipe::Callbacks {
  static ssize_t pull(gnutls_transport_ptr_t self, void* to, std::size_t bytes) {
    auto& pipe = *static_cast<TlsPipe*>(self);
    const std::size_t n = std::min(bytes, pipe.input_.size() - pipe.input_read_);
    if (n == 0) {
      gnutls_transport_set_errno(pipe.session_, EAGAIN);
      return -1;
    }
    std::memcpy(to, pipe.input_.data() + pipe.input_read_, n);
    pipe.input_read_ += n;
    return static_cast<ssize_t>(n);
  }
  static ssize_t push(gnutls_transport_ptr_t self, const void* from, std::size_t bytes) {
    auto& pipe = *static_cast<TlsPipe*>(self);
    const auto* const first = static_cast<const std::byte*>(from);
    pipe.output_.insert(pipe.output_.end(), first, first + bytes);
    return static_cast<ssize_t>(bytes);
  }
  static int pull_timeout(gnutls_transport_ptr_t self, unsigned /*ms*/) {
    const auto& pipe = *static_cast<TlsPipe*>(self);
    return pipe.input_.size() > pipe.input_read_ ? 1 : 0;
  }
};

TlsPipe::TlsPipe(unsigned flags) {
  if (gnutls_init(&session_, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0) {
    session_ = nullptr;
    return;
  }
  gnutls_transport_set_ptr(session_, this);
  gnutls_transport_set_pull_function(session_, Callbacks::pull);
  gnutls_transport_set_push_function(session_, Callbacks::push);
  gnutls_transport_set_pull_timeout_function(session_, Callbacks::pull_timeout);
  gnutls_handshake_set_timeout(session_, GNUTLS_INDEFINITE_TIMEOUT);  // the caller has the clock
}

TlsPipe::~TlsPipe() {
  if (session_ != nullptr) gnutls_deinit(session_);
}

bool TlsPipe::give(Bytes bytes) {
  if (input_read_ > 0) {
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(input_read_));
    input_read_ = 0;
  }
  if (input_.size() + bytes.size() > kInputBytesMax) return false;
  input_.insert(input_.end(), bytes.begin(), bytes.end());
  return true;
}

void TlsPipe::give_only(Bytes bytes) {
  input_.assign(bytes.begin(), bytes.end());
  input_read_ = 0;
}

std::vector<std::byte> TlsPipe::take_output() noexcept {
  return std::exchange(output_, {});
}

bool TlsPipe::keys(Direction direction, TlsKeys& keys) const {
  switch (gnutls_protocol_get_version(session_)) {
    case GNUTLS_TLS1_3:
      keys.version = TlsVersion::tls13;
      break;
    case GNUTLS_TLS1_2:
      keys.version = TlsVersion::tls12;
      break;
    default:
      return false;
  }
  switch (gnutls_cipher_get(session_)) {
    case GNUTLS_CIPHER_AES_128_GCM:
      keys.suite = TlsSuite::aes_128_gcm;
      break;
    case GNUTLS_CIPHER_AES_256_GCM:
      keys.suite = TlsSuite::aes_256_gcm;
      break;
    case GNUTLS_CIPHER_CHACHA20_POLY1305:
      keys.suite = TlsSuite::chacha20_poly1305;
      break;
    default:
      return false;
  }
  gnutls_datum_t mac{};
  gnutls_datum_t iv{};
  gnutls_datum_t key{};
  std::array<unsigned char, 8> sequence{};
  if (gnutls_record_get_state(session_, direction == Direction::from_peer ? 1 : 0, &mac, &iv, &key,
                              sequence.data()) < 0)
    return false;
  if (key.size > keys.key.size() || iv.size > keys.iv.size()) return false;
  std::memcpy(keys.key.data(), key.data, key.size);
  std::memcpy(keys.iv.data(), iv.data, iv.size);
  keys.sequence = 0;
  for (const unsigned char b : sequence) keys.sequence = keys.sequence << 8 | b;
  return true;
}

bool TlsPipe::set_sequence(Direction direction, uint64_t sequence) {
  std::array<unsigned char, 8> number{};
  for (unsigned i = 0; i < 8; ++i) number[i] = static_cast<unsigned char>(sequence >> (56 - 8 * i));
  return gnutls_record_set_state(session_, direction == Direction::from_peer ? 1 : 0, number.data()) >= 0;
}

std::string TlsPipe::description() const {
  const char* const version = gnutls_protocol_get_name(gnutls_protocol_get_version(session_));
  const char* const cipher = gnutls_cipher_get_name(gnutls_cipher_get(session_));
  return std::string(version != nullptr ? version : "TLS") + " " +
         (cipher != nullptr ? cipher : "without a cipher");
}

std::string TlsPipe::alert() const {
  // In no variable of its type, which has no such number.
  const char* const name = gnutls_alert_get_name(gnutls_alert_get(session_));
  return name != nullptr ? name : "alert " + std::to_string(static_cast<int>(gnutls_alert_get(session_)));
}

}  // namespace migrx

#include "loader/tls/tls_connector.h"

#include <utility>

namespace migrx {

// Owned by its link, and by the helper while it works on it.
struct TlsConnector::Connection {
  // Phase::working: all else is the helper's; otherwise the control thread's.
  std::atomic<SecuredLink::Phase> phase{SecuredLink::Phase::wants_bytes};
  std::optional<TlsClientSession> session;  // made by the helper
  std::vector<std::byte> input;             // for the helper
};

class TlsConnector::Link final : public SecuredLink {
 public:
  explicit Link(TlsConnector& connector)
      : connector_(connector), connection_(std::make_shared<Connection>()) {}

  [[nodiscard]] Phase phase() const noexcept override {
    return connection_->phase.load(std::memory_order_acquire);  // pairs with help()
  }
  void go_on(Bytes from_peer) override {
    connection_->input.assign(from_peer.begin(), from_peer.end());
    connection_->phase.store(Phase::working, std::memory_order_relaxed);
    connector_.helper_.post(
        [&connector = connector_, connection = connection_] { connector.help(*connection); });
  }
  [[nodiscard]] std::vector<std::byte> take_output() override {
    return connection_->session ? connection_->session->take_output() : std::vector<std::byte>{};
  }
  [[nodiscard]] bool seal(Bytes text) override { return connection_->session->write(text); }
  [[nodiscard]] bool open(Bytes from_peer, std::vector<std::byte>& text) override {
    return connection_->session->read(from_peer, text);
  }
  [[nodiscard]] std::string problem() const override {
    return connection_->session ? connection_->session->problem() : std::string{};
  }

 private:
  TlsConnector& connector_;
  const std::shared_ptr<Connection> connection_;
};

TlsConnector::TlsConnector(std::unique_ptr<TlsCredentialStore> store, std::string host,
                           std::string host_option)
    : credentials_(std::move(store)), host_(std::move(host)), host_option_(std::move(host_option)) {}

TlsConnector::~TlsConnector() = default;

std::unique_ptr<SecuredLink> TlsConnector::connect() {
  return std::make_unique<Link>(*this);
}

void TlsConnector::help(Connection& connection) {
  using Phase = SecuredLink::Phase;
  if (!connection.session) connection.session.emplace(credentials_.get(), host_, host_option_);
  Phase next = Phase::wants_bytes;
  switch (connection.session->handshake(connection.input)) {
    case TlsClientSession::Progress::need_more:
      break;
    case TlsClientSession::Progress::failed:
      next = Phase::failed;
      break;
    case TlsClientSession::Progress::done: {
      next = Phase::open;
      handshakes_.fetch_add(1, std::memory_order_relaxed);
      const std::lock_guard lock(mutex_);
      if (description_.empty()) description_ = connection.session->description();
      break;
    }
  }
  connection.input.clear();
  connection.phase.store(next, std::memory_order_release);  // pairs with Link::phase()
}

std::string TlsConnector::description() {
  const std::lock_guard lock(mutex_);
  return description_;
}

}  // namespace migrx

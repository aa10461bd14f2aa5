#include "loader/tls/tls_acceptor.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "loader/tls/kernels/aead_kernels.h"

namespace migrx {

// Owned by the acceptor, and by the helper while it works on it.
struct TlsAcceptor::Connection {
  Connection(Handoff& handoff, ChannelDirectory& directory, uint32_t worker, const GcmKernels* kernels)
      : channel(handoff, directory, worker, kernels) {}

  TlsChannel channel;
  // The helper's while `busy`, the control thread's otherwise. Made by the helper, with the first bytes.
  std::optional<TlsServerSession> session;
  std::atomic<bool> busy{false};
  std::vector<std::byte> input;  // for the helper
  Progress progress = Progress::need_more;
  // Control thread.
  bool answered = true;  // `progress` has been looked at
  uint64_t since_ns = 0;
  bool settled = false;  // open or refused
  std::vector<std::byte> output;
  std::size_t output_sent = 0;
};

TlsAcceptor::TlsAcceptor(std::unique_ptr<TlsCredentialStore> store, const TlsAuthz* authz,
                         uint32_t connections_max, uint64_t handshake_ns)
    : credentials_(std::move(store)),
      authz_(authz),
      kernels_(select_gcm_kernels()),
      connections_max_(connections_max),
      handshake_ns_(handshake_ns) {}

TlsAcceptor::~TlsAcceptor() = default;

ChannelParser* TlsAcceptor::accept(Handoff& connection, uint32_t worker,
                                   ChannelDirectory& directory) noexcept {
  const std::lock_guard lock(mutex_);
  if (connections_.size() >= connections_max_) return nullptr;
  connections_.push_back(std::make_shared<Connection>(connection, directory, worker, kernels_));
  return &connections_.back()->channel;
}

void TlsAcceptor::help(Connection& connection) {
  if (!connection.session) connection.session.emplace(credentials_.get(), authz_);
  connection.progress = connection.session->handshake(connection.input);
  connection.input.clear();
  connection.busy.store(false, std::memory_order_release);  // pairs with serve()
}

uint32_t TlsAcceptor::do_work(uint64_t now_ns) {
  std::vector<std::shared_ptr<Connection>> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& connection : connections_)
      if (!connection->settled || connection->channel.phase() == TlsChannel::Phase::set_aside ||
          connection->output_sent < connection->output.size())
        all.push_back(connection);
  }
  uint32_t work = 0;
  for (const auto& connection : all) {
    if (connection->since_ns == 0) connection->since_ns = now_ns;
    work += serve(*connection, now_ns);
    if (connection->settled || connection->busy.load(std::memory_order_acquire)) continue;
    ByteFifo& bytes = connection->channel.handshake_bytes();
    if (bytes.empty() || !connection->answered) continue;
    for (Bytes some = bytes.readable(); !some.empty(); some = bytes.readable()) {
      connection->input.insert(connection->input.end(), some.begin(), some.end());
      bytes.consume(some.size());
    }
    connection->answered = false;
    connection->busy.store(true, std::memory_order_relaxed);
    helper_.post([this, connection] { help(*connection); });
    ++work;
  }
  return work;
}

uint32_t TlsAcceptor::serve(Connection& connection, uint64_t now_ns) {
  if (connection.busy.load(std::memory_order_acquire)) return 0;
  const uint32_t work = send_output(connection) ? 1 : 0;  // what found no room before
  if (connection.settled) {
    if (connection.channel.phase() != TlsChannel::Phase::set_aside) return work;
    TlsKeys keys;
    switch (
        connection.session->on_record(connection.channel.record(), connection.channel.record_sequence())) {
      case TlsServerSession::RecordEvent::new_keys:
        if (connection.session->read_keys(keys))
          connection.channel.resume(keys);
        else
          connection.channel.fail_record("the new keys cannot be used");
        break;
      case TlsServerSession::RecordEvent::closed:
        connection.channel.close();
        break;
      case TlsServerSession::RecordEvent::failed:
        connection.channel.fail_record(connection.session->problem());
        break;
    }
    // Nothing is written here: an answer that a KeyUpdate asked for leaves with the next message of main (RFC
    // 8446, section 4.6.3), and on a multifd connection nothing ever leaves.
    return work + 1;
  }
  if (connection.answered) {
    if (handshake_ns_ == 0 || now_ns - connection.since_ns < handshake_ns_) return work;
    refuse(connection, "its handshake was not finished in time");
    (void)connection.channel.connection().abort();  // its worker waits for bytes, and none come
    return 1;
  }
  connection.answered = true;
  const std::vector<std::byte> flight = connection.session->take_output();
  connection.output.insert(connection.output.end(), flight.begin(), flight.end());
  (void)send_output(connection);
  switch (connection.progress) {
    case Progress::need_more:
      connection.channel.want_more();
      break;
    case Progress::failed:
      refuse(connection, connection.session->problem());
      break;
    case Progress::done: {
      TlsKeys keys;
      (void)connection.session->read_keys(keys);  // it could a moment ago
      connection.channel.establish(keys, connection.session->rest());
      connection.settled = true;
      ++handshakes_;
      if (description_.empty())
        description_ =
            connection.session->description() +
            (connection.session->peer_name().empty() ? "" : ", " + connection.session->peer_name());
      break;
    }
  }
  return 1;
}

bool TlsAcceptor::send_output(Connection& connection) {
  bool sent = false;
  while (connection.output_sent < connection.output.size()) {
    const std::size_t n =
        std::min(connection.output.size() - connection.output_sent, ConnectionCommand::kBytesMax);
    if (!connection.channel.connection().send({connection.output.data() + connection.output_sent, n}))
      return sent;
    connection.output_sent += n;
    sent = true;
  }
  connection.output.clear();
  connection.output_sent = 0;
  return sent;
}

void TlsAcceptor::refuse(Connection& connection, const std::string& why) {
  connection.settled = true;
  connection.channel.refuse();
  if (refusals_.size() < kRefusalsMax)
    refusals_.push_back(std::string(connection.channel.connection().peer.data()) + ": TLS refused: " + why);
}

bool TlsAcceptor::seal(const Handoff& handoff, Bytes message, std::vector<std::byte>& out) {
  std::shared_ptr<Connection> found;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& connection : connections_)
      if (&connection->channel.connection() == &handoff) found = connection;
  }
  if (found == nullptr || !found->settled || !found->session || found->output_sent < found->output.size())
    return false;
  if (!found->session->seal(message)) return false;
  out = found->session->take_output();
  return true;
}

void TlsAcceptor::forget(const Handoff& handoff) {
  const std::lock_guard lock(mutex_);
  std::erase_if(connections_, [&](const std::shared_ptr<Connection>& connection) {
    if (&connection->channel.connection() != &handoff) return false;
    forgotten_.add(connection->channel.counters());
    return true;
  });
}

TlsRecords TlsAcceptor::records() {
  const std::lock_guard lock(mutex_);
  TlsRecords all = forgotten_;
  for (const auto& connection : connections_) all.add(connection->channel.counters());
  return all;
}

std::optional<std::string> TlsAcceptor::take_refusal() {
  if (refusals_.empty()) return std::nullopt;
  std::string text = std::move(refusals_.front());
  refusals_.pop_front();
  return text;
}

}  // namespace migrx

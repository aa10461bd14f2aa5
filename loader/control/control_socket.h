// A daemon's control socket: it listens, and serves its clients by JSON lines in QMP's manner
// (control_parser.h, control_message.h). Never blocks; one thread.
//
// No client can harm another, or hold the thread up: what it may have open, send, leave unread and have
// executed in one turn is bounded, and each has its turn.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "loader/control/control_connection.h"
#include "loader/control/control_listener.h"
#include "loader/control/control_service.h"
#include "loader/control/foreign_files.h"
#include "numa/descriptor.h"

namespace migrx {

struct ControlSocketSettings {
  std::string path;
  std::string group;    // that may connect; empty: the process's own
  std::string version;  // of the program, for the greeting
  // `migrx receive --via` holds a connection for as long as its migration lasts.
  std::size_t clients_max = 128;
  std::size_t clients_of_root = 8;  // of them; whatever others do, root can look and cancel
};

class ControlSocket {
 public:
  static constexpr uint32_t kRequestsPerTurn = 8;
  static constexpr uint32_t kAcceptsPerTurn = 8;

  // The service outlives it. Throws std::runtime_error with a sentence: see ControlListener.
  ControlSocket(const ControlSocketSettings& settings, ControlService& service);
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  // Accepts, reads, executes, writes. Returns how much it did. May be called at any time; must be when
  // wake_fd() is readable, and once a second or so.
  uint32_t do_work();
  // An epoll descriptor: readable while do_work() has something to do.
  [[nodiscard]] int wake_fd() const noexcept { return epoll_.get(); }
  // To every client, with the time. May be called by the service, also while it executes a request.
  void event(std::string_view name, const nlohmann::json& data);

  [[nodiscard]] std::size_t clients() const noexcept { return clients_.size(); }

 private:
  struct Client {
    Client(Descriptor socket, ControlPeer peer, ForeignFiles& files)
        : connection(std::move(socket), std::move(peer), files) {}
    ControlConnection connection;
    uint32_t interest = 0;  // as epoll has it
  };
  using Clients = std::map<uint64_t, std::unique_ptr<Client>>;  // by number, in the order they came

  uint32_t accept_some();
  void admit(Descriptor socket);
  [[nodiscard]] std::string refusal(const ControlPeer& peer) const;
  void execute(ControlConnection& connection, ControlLine line);
  [[nodiscard]] ControlAnswer answer(const ControlPeer& peer, ControlLine& line);
  uint32_t execute_some();
  void settle();
  void watch_listener(bool on);

  const ControlSocketSettings settings_;
  ControlService& service_;
  ForeignFiles files_;
  ControlListener listener_;
  Descriptor epoll_;
  Descriptor more_;  // eventfd: requests are left for another turn
  Clients clients_;
  uint64_t last_number_ = 0;
  uint64_t served_last_ = 0;
  uint64_t listener_rests_until_ns_ = 0;  // 0: it is watched
};

}  // namespace migrx

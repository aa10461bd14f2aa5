// TLS handshakes between our own client and our own server, with their flights damaged, cut, repeated and
// mixed with other bytes on the way. PSK, since a signature would take most of the time. Input: a byte of
// versions, a byte of piece size, then steps: [kind, length, bytes], each of which spoils what is on its way
// to the server (or, with kToClient, to the client) before both go on.
//
// Whatever comes: one answer at a time, outputs of bounded size, and after a failure nothing more. Where
// nothing was spoilt both sides are done, agree on the keys, and what the client sent after the handshake is
// the server's rest, byte for byte.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "loader/tls/client_session.h"
#include "loader/tls/server_session.h"
#include "tests/fuzz/fuzz_target.h"

namespace migrx::test {
namespace {

enum Kind : uint8_t { kPass, kFlip, kCut, kInsertBefore, kInsertAfter, kTwice, kAlone, kKinds };
constexpr uint8_t kToClient = 0x80;
constexpr std::size_t kOutputMax = std::size_t{64} << 10;  // of one answer
constexpr unsigned kTurnsMax = 40;

class Folder {
 public:
  Folder() : path_("/tmp/migrx-fuzz-tls-" + std::to_string(::getpid())) {
    std::filesystem::create_directories(path_);
    std::ofstream(path_ + "/keys.psk") << "qemu:00112233445566778899aabbccddeeff\n";
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::shared_ptr<const TlsCredentials> load(TlsCredsOptions::Endpoint endpoint,
                                                           const std::string& priority) const {
    TlsCredsOptions options;
    std::string problem = parse_tls_creds(
        "psk:dir=" + path_ + (priority.empty() ? "" : ",priority=" + priority), options, endpoint);
    auto loaded = problem.empty() ? TlsCredentials::load(options, problem) : nullptr;
    if (loaded == nullptr) std::abort();
    return loaded;
  }

 private:
  const std::string path_;
};

struct Credentials {
  std::shared_ptr<const TlsCredentials> server, client;
};

const Credentials& credentials(uint8_t choice) {
  static const Folder folder;
  static const auto make = [](const std::string& priority) {
    return Credentials{folder.load(TlsCredsOptions::Endpoint::server, ""),
                       folder.load(TlsCredsOptions::Endpoint::client, priority)};
  };
  static const Credentials all[] = {make(""), make("NORMAL:-VERS-TLS1.3"),
                                    make("NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305")};
  return all[choice % std::size(all)];
}

// A flight on its way. True: the peer gets something else than was sent.
bool spoil(std::vector<std::byte>& flight, uint8_t kind, std::size_t at, Bytes bytes) {
  const std::vector<std::byte> before = flight;
  const auto place = [&flight](std::size_t offset) {
    return flight.begin() + static_cast<std::ptrdiff_t>(std::min(offset, flight.size()));
  };
  switch (kind % kKinds) {
    case kFlip:
      for (std::size_t i = 0; i < bytes.size() && !flight.empty(); ++i)
        flight[(at * 7 + i * 131) % flight.size()] ^= bytes[i];
      break;
    case kCut:
      flight.erase(place(at * 5), flight.end());
      break;
    case kInsertBefore:
      flight.insert(flight.begin(), bytes.begin(), bytes.end());
      break;
    case kInsertAfter:
      flight.insert(place(at * 9), bytes.begin(), bytes.end());
      break;
    case kTwice:
      flight.insert(flight.end(), before.begin(), before.end());
      break;
    case kAlone:
      flight.assign(bytes.begin(), bytes.end());
      break;
    default:
      break;
  }
  return flight != before;
}

}  // namespace

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::vector<std::byte>> seeds;
  for (uint8_t choice = 0; choice < 3; ++choice)
    for (uint8_t kind = 0; kind < kKinds; ++kind)
      for (const uint8_t turn : {uint8_t{0}, uint8_t{1}}) {
        std::vector<std::byte> input{static_cast<std::byte>(choice),
                                     static_cast<std::byte>(kind * 40 + turn)};
        const auto step = [&input](uint8_t what, const std::string& text) {
          input.push_back(static_cast<std::byte>(what));
          input.push_back(static_cast<std::byte>(text.size()));
          for (const char c : text) input.push_back(static_cast<std::byte>(c));
        };
        for (uint8_t i = 0; i < turn; ++i) step(kPass, "");
        step(kind, std::string("\x16\x03\x03\x00\x05hello", 10));
        step(kind | kToClient, std::string("\x15\x03\x03\x00\x02\x01\x00", 7));
        seeds.push_back(std::move(input));
      }
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  using namespace migrx::test;
  if (size < 2) return 0;
  const Credentials& both = credentials(data[0]);
  TlsServerSession server(both.server, nullptr);
  TlsClientSession client(both.client, "");
  const std::size_t piece = 1 + std::size_t{data[1]} * 3;
  Bytes script{reinterpret_cast<const std::byte*>(data) + 2, size - 2};
  using ToServer = TlsServerSession::Progress;
  using ToClient = TlsClientSession::Progress;
  ToServer at_server = ToServer::need_more;
  ToClient at_client = client.handshake({});
  bool spoilt = false;
  std::vector<std::byte> after;  // what came to the server once it was done
  for (unsigned turn = 0; turn < kTurnsMax; ++turn) {
    std::vector<std::byte> to_server = client.take_output();
    std::vector<std::byte> to_client = server.take_output();
    if (to_server.size() > kOutputMax || to_client.size() > kOutputMax) std::abort();
    if (to_server.empty() && to_client.empty() && script.empty()) break;
    if (script.size() >= 2) {
      const auto kind = std::to_integer<uint8_t>(script[0]);
      const auto length = std::to_integer<std::size_t>(script[1]);
      script = script.subspan(2);
      const Bytes bytes = script.first(std::min(length, script.size()));
      script = script.subspan(bytes.size());
      std::vector<std::byte>& flight = (kind & kToClient) != 0 ? to_client : to_server;
      spoilt = spoil(flight, static_cast<uint8_t>(kind & ~kToClient), length, bytes) || spoilt;
    } else {
      script = {};
    }
    // Pieces of their own, so that a read beyond one is seen by a sanitizer.
    for (std::size_t at = 0; at < to_server.size(); at += piece) {
      const std::vector<std::byte> some(
          to_server.begin() + static_cast<std::ptrdiff_t>(at),
          to_server.begin() + static_cast<std::ptrdiff_t>(std::min(at + piece, to_server.size())));
      if (at_server == ToServer::need_more)
        at_server = server.handshake(some);
      else
        after.insert(after.end(), some.begin(), some.end());
    }
    if (at_client == ToClient::need_more && !to_client.empty()) at_client = client.handshake(to_client);
    if (at_server == ToServer::failed && server.problem().empty()) std::abort();
    if (at_client == ToClient::failed && client.problem().empty()) std::abort();
  }
  if (spoilt) return 0;
  if (at_server != ToServer::done || at_client != ToClient::done) std::abort();
  TlsKeys from_client;
  TlsKeys to_server;
  if (!server.read_keys(from_client) || !client.write_keys(to_server)) std::abort();
  if (from_client.key != to_server.key || from_client.iv != to_server.iv ||
      from_client.suite != to_server.suite)
    std::abort();
  if (!server.rest().empty() || !after.empty()) std::abort();
  return 0;
}

#include "loader/destination/destination_qemu.h"

#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "loader/destination/network_namespace.h"
#include "numa/file_claim.h"
#include "numa/process_user.h"

namespace migrx {
namespace {

// For one that hangs up on the first bytes: of a plain hand-off, within a handshake, and behind one.
constexpr const char* kTlsHint =
    " (with tls-creds set it expects TLS: give --handoff-tls-creds, and --handoff-tls on where the source "
    "has none; or migrate_set_parameter tls-creds \"\" there)";
constexpr const char* kNoTlsHint =
    " (without tls-creds it expects no TLS: migrate_set_parameter tls-creds ID there, or --handoff-tls off "
    "here; with them both ends need keys and priority= that fit each other)";
constexpr const char* kCertificateHint =
    " (the TLS handshake was finished here: it may have refused what it was shown. client-cert.pem in dir= "
    "of --handoff-tls-creds must be of an authority in its ca-cert.pem, and of a name that its tls-authz "
    "allows; with psk both need the same keys.psk)";

constexpr const char* kPostcopyHint =
    " (it ended at POSTCOPY_ADVISE: a source with the capability postcopy-ram needs a destination with it, "
    "which "
    "must have the right to userfaultfd (root, vm.unprivileged_userfaultfd=1, or /dev/userfaultfd))";

std::map<std::string, uint64_t> page_bytes_of(const std::vector<SharedFile>& files) {
  std::map<std::string, uint64_t> bytes;
  for (const SharedFile& file : files) bytes[file.idstr] = file.page_bytes;
  return bytes;
}

}  // namespace

DestinationQemu::DestinationQemu(DestinationSettings settings, const RamBlockList& blocks)
    : settings_(std::move(settings)),
      rewriter_(blocks, settings_.form, settings_.addresses, page_bytes_of(settings_.files), fifo_) {
  if (settings_.memory_postponed) rewriter_.expect_no_memory();
}

DestinationQemu::~DestinationQemu() {
  disconnect();
}

void DestinationQemu::abandon() {
  abandoned_ = true;
  disconnect();
}

void DestinationQemu::disconnect() {
  socket_.reset();
  link_.close();
  multifd_.close();
  preempt_.close();
  connected_ = false;
}

void DestinationQemu::on_multifd_init(std::span<const std::byte, kMultifdInitBytes> packet) {
  inits_.emplace_back();
  std::copy(packet.begin(), packet.end(), inits_.back().begin());
}

uint32_t DestinationQemu::do_work(uint64_t now_ns) {
  if (verdict_ != Verdict::pending || abandoned_ || paused_) return 0;
  if (settings_.process && !process_.watching()) {
    if (const std::string problem = process_.watch(*settings_.process); !problem.empty()) {
      refuse_because(ErrorClass::io, problem + ": --destination-pid names no process of this host");
      return 0;
    }
    std::string problem;
    namespace_ = network_namespace_of(*settings_.process, problem);
    if (!problem.empty()) {
      refuse_because(ErrorClass::io, problem);
      return 0;
    }
  }
  const bool due = now_ns - looked_ns_ >= kLookNs;
  if (due) looked_ns_ = now_ns;
  if (due && !connected_ && process_.ended()) {
    refuse_because(ErrorClass::io,
                   "process " + std::to_string(process_.process()) +
                       " has ended before the guest came: start it again, and migrx after it");
    return 0;
  }
  if (!connected_ && (fifo_.empty() || !connect(now_ns))) return 0;
  uint32_t work = link_.do_work(now_ns);
  if (!link_.open()) {
    if (link_.end() != DestinationLink::End::none)
      refuse_end("closed the connection within the TLS handshake");
    connected_ns_ = now_ns;  // what it does with the connection begins behind the handshake
    return work;
  }
  if (work > 0) last_sent_ns_ = now_ns;
  if (!proved_ && due) decide_multifd(now_ns);
  work += serve_multifd(now_ns) + serve_preempt(now_ns);
  if (rewriter_.wants_memory() && !rewriter_.advised() && !refilling_) begin_refill(/*emptied=*/false);
  if (refilling_ && !memory_there_) look_at_refill(now_ns);
  if (verdict_ == Verdict::pending) work += send_some(now_ns);
  return verdict_ == Verdict::pending ? work + receive_some() : work;
}

std::string DestinationQemu::visible_path() const {
  if (settings_.access) return settings_.access->path;
  if (!settings_.process) return settings_.address.path;
  const std::string proc = "/proc/" + std::to_string(*settings_.process);
  struct stat theirs {};
  struct stat ours {};
  const bool same = ::stat((proc + "/ns/mnt").c_str(), &theirs) == 0 &&
                    ::stat("/proc/self/ns/mnt", &ours) == 0 && theirs.st_ino == ours.st_ino;
  const std::string path = proc + "/root" + settings_.address.path;
  return same || path.size() >= sizeof(sockaddr_un::sun_path) ? settings_.address.path : path;
}

// Whose socket is it? Before the connection: a QEMU without multifd closes its listener as soon as it has
// accepted. False: nothing to be seen yet, or refused.
bool DestinationQemu::look_around() {
  std::string problem;
  listener_ = find_listener(settings_.address, visible_path(), namespace_.get(), problem);
  if (!listener_) {
    // Without sock_diag a UNIX socket's peer can still be asked who it is.
    return !problem.empty() && (settings_.process.has_value() || settings_.address.is_unix());
  }
  if (!settings_.process && !settings_.files.empty()) {
    const std::vector<pid_t> owners = processes_with_socket(listener_->inode);
    if (owners.size() > 1) {
      refuse_because(ErrorClass::mismatch, "several processes listen on " + settings_.address.text +
                                               " (among them " + std::to_string(owners[0]) + " and " +
                                               std::to_string(owners[1]) +
                                               "): name the QEMU among them with --destination-pid");
      return false;
    }
    if (owners.size() == 1) {
      settings_.process = owners[0];
      if (const std::string gone = process_.watch(owners[0]); !gone.empty()) {
        refuse_because(ErrorClass::io, gone);
        return false;
      }
    }
  }
  listener_is_its_own_ = settings_.process && process_has_socket(*settings_.process, listener_->inode);
  return true;
}

bool DestinationQemu::connect(uint64_t now_ns) {
  if (connect_since_ns_ == 0) connect_since_ns_ = now_ns;
  // In postcopy the source waits as long as it takes, and so does its guest.
  const bool late = !in_postcopy_ && now_ns - connect_since_ns_ > kConnectNs;
  if (!looked_) {
    if (now_ns != looked_ns_ && !late) return false;  // not each time: it takes some system calls
    looked_ = look_around();
    if (verdict_ != Verdict::pending) return false;
    if (!looked_ && !late) return false;
  }
  const SocketAddress address = reachable_address();
  if (!socket_) socket_ = socket_in(namespace_.get(), address.family(), SOCK_STREAM, 0);
  if (socket_ && (::connect(socket_.get(), address.get(), address.length) == 0 || errno == EISCONN)) {
    connected_ns_ = now_ns;
    connected_ = prove_user() && prove_memory();
    if (connected_)
      link_.begin(std::move(socket_), settings_.security != nullptr ? settings_.security->connect() : nullptr,
                  now_ns);
    if (connected_ && preempts_) preempt_.begin(further_address());  // of a connection that is made anew
    return connected_;
  }
  const int error = errno;
  if ((error == EINPROGRESS || error == EALREADY || error == EINTR) && !late) return false;
  const bool may_come = error == ENOENT || error == ECONNREFUSED || error == EAGAIN;
  if (error == ECONNREFUSED) {  // of TCP: this socket has had its answer
    socket_.reset();
    looked_ = false;
  }
  if (in_postcopy_ ? false : !may_come || late)
    refuse("cannot be reached: start it with -incoming defer, then migrate-incoming with this address",
           error);
  return false;
}

// Before a byte is said. Who listened first may have left the socket to another process.
bool DestinationQemu::prove_user() {
  if (!settings_.access) return true;
  const std::optional<ucred> peer = peer_credentials(fd());
  const uid_t user = settings_.access->user;
  const bool own = peer && peer->uid == user && only_user_of(settings_.process.value_or(peer->pid)) == user &&
                   !process_.ended();
  if (!own)
    refuse_because(ErrorClass::mismatch,
                   settings_.address.text + ": another user's process listens there: only root may name it");
  return own;
}

bool DestinationQemu::prove_memory() {
  if (settings_.files.empty()) return true;
  const PeerMemory memory = settings_.process ? check_process_memory(*settings_.process, settings_.files)
                                              : check_peer_memory(fd(), settings_.files);
  if (memory.problem.empty() && memory.warning.empty() && !process_.ended()) return true;
  if (!memory.problem.empty())
    refuse_because(ErrorClass::mismatch, memory.problem);
  else if (memory.warning.empty())
    refuse_because(ErrorClass::io, "process " + std::to_string(process_.process()) + " has ended");
  else
    // A block that the destination does not share would be lost without any message.
    refuse_because(ErrorClass::mismatch,
                   memory.warning +
                       "; migrx hands nothing over to memory that it cannot check: run migrx as root where "
                       "that QEMU can be seen, and name the QEMU with --destination-pid");
  return false;
}

// A process that has mapped a file since migrx claimed the file may run a guest on it.
bool DestinationQemu::prove_alone() {
  if (!settings_.process) return true;
  for (const SharedFile& file : settings_.files) {
    if (file.others_allowed) continue;
    bool hidden = false;
    for (const FileUser& user : users_of_file(file.id, "/proc", hidden)) {
      if (user.pid == *settings_.process) continue;
      refuse_because(ErrorClass::mismatch,
                     file.path + " of block " + file.idstr + " is mapped by " + user.command + " (PID " +
                         std::to_string(user.pid) +
                         ") as well, which may run a guest on it: end that process, and migrate again");
      return false;
    }
  }
  return true;
}

void DestinationQemu::decide_multifd(uint64_t now_ns) {
  if (multifd_decided_) return;
  const uint64_t waited_ns = now_ns - connected_ns_;
  const uint32_t backlog = listener_is_its_own_ ? listener_->backlog : 0;
  const uint32_t channels = settings_.source_channels;
  // Before it reads, one of 7.2 has to have the connection of postcopy-preempt.
  if (backlog == kPreemptBacklog && backlog != channels && !preempt_.begun())
    preempt_.begin(further_address());
  if (backlog > 1 && backlog != channels) {
    // It would answer by now if it wanted nothing more.
    if (waited_ns < (preempt_.begun() ? kPreemptPatienceNs : kMultifdPatienceNs)) return;
    refuse_because(ErrorClass::mismatch,
                   "it waits for " + std::to_string(backlog) +
                       " more connections (multifd-channels, or 2 with postcopy-preempt), the source has " +
                       std::to_string(channels) +
                       " multifd channels: make capability and parameter equal at both ends");
    return;
  }
  if (channels == 0) {
    multifd_decided_ = true;
    return;
  }
  if (inits_.size() < channels) return;
  // With postcopy-preempt a listener's backlog is the same, and it answers without a further connection.
  const bool preempt_perhaps = backlog == kPreemptBacklog && waited_ns < kMultifdPatienceNs;
  if (backlog == channels && backlog > 1) {
    if (preempt_perhaps) return;
    multifd_decided_ = true;
  } else {
    if (waited_ns < kMultifdPatienceNs) return;
    multifd_decided_ = multifd_guessed_ = true;
    if (!still_listens()) return;
  }
  multifd_.begin(further_address(), inits_);
}

// Its listener goes when it has all that it waits for. True also where that cannot be seen.
bool DestinationQemu::still_listens() const {
  std::string problem;
  const auto still = find_listener(settings_.address, visible_path(), namespace_.get(), problem);
  return !problem.empty() || (still && (!listener_ || still->inode == listener_->inode));
}

FurtherAddress DestinationQemu::further_address() const {
  return {reachable_address(), namespace_.get(), settings_.security};
}

SocketAddress DestinationQemu::reachable_address() const {
  SocketAddress address = settings_.address;
  if (address.is_unix()) {
    const std::string path = visible_path();
    auto* const name = reinterpret_cast<sockaddr_un*>(&address.storage);
    std::memset(name->sun_path, 0, sizeof name->sun_path);
    std::memcpy(name->sun_path, path.data(), path.size());
  }
  return address;
}

// The destination has emptied its RAM, and takes postcopy.
void DestinationQemu::take_advice() {
  advice_taken_ = true;
  begin_refill(/*emptied=*/true);
  if (!preempt_.begun() && listener_ && still_listens()) preempt_.begin(further_address());
}

void DestinationQemu::begin_refill(bool emptied) {
  refilling_ = true;
  if (settings_.refill != nullptr) settings_.refill->begin(emptied);
}

void DestinationQemu::look_at_refill(uint64_t now_ns) {
  if (settings_.refill != nullptr) {
    const std::optional<std::string> outcome = settings_.refill->outcome();
    if (!outcome) {
      // The source waits for this host's memory, and not for nothing.
      if (std::exchange(refilled_, settings_.refill->bytes_done()) != refilled_) last_sent_ns_ = now_ns;
      return;
    }
    if (!outcome->empty())
      return refuse_because(ErrorClass::io,
                            (advice_taken_ ? "the destination has given the guest's memory back, as postcopy "
                                             "has it, and there is not as much any more: "
                                           : "") +
                                *outcome);
  }
  memory_there_ = true;
  rewriter_.memory_ready();
}

uint32_t DestinationQemu::serve_preempt(uint64_t now_ns) {
  const uint32_t work = preempt_.do_work(now_ns);
  if (preempt_.problem().empty() || proved_ || verdict_ != Verdict::pending) return work;
  (void)receive_some();  // it may have said why
  if (verdict_ == Verdict::pending && !proved_) refuse_because(ErrorClass::io, preempt_.problem());
  return work;
}

void DestinationQemu::pause() {
  preempts_ = preempts_ || preempt_.begun();
  disconnect();
  said_.clear();
  said_taken_ = 0;
  verdict_ = Verdict::pending;
  error_ = {};
  paused_ = true;
  ++pauses_;
}

PostcopyNumbers DestinationQemu::postcopy() const noexcept {
  PostcopyNumbers numbers;
  if (rewriter_.packaged()) {
    numbers.discarded_ranges = rewriter_.discarded().ranges();
    numbers.discarded_pages = rewriter_.discarded().pages();
  }
  numbers.requests = return_relay_.requests();
  numbers.requested_bytes = return_relay_.requested_bytes();
  numbers.urgent_bytes = preempt_.bytes_sent();
  numbers.pauses = pauses_;
  return numbers;
}

void DestinationQemu::resume() {
  for (Bytes left = fifo_.readable(); !left.empty(); left = fifo_.readable()) fifo_.consume(left.size());
  preempt_.forget();
  return_relay_.begin_anew();
  abandoned_ = paused_ = looked_ = false;
  listener_.reset();
  connect_since_ns_ = 0;
}

void DestinationQemu::took_said(std::size_t bytes) {
  said_taken_ += bytes;
  if (said_taken_ < said_.size()) return;
  said_.clear();
  said_taken_ = 0;
}

// Whatever a destination says in postcopy is the source's.
uint32_t DestinationQemu::relay(Bytes bytes) {
  const DiscardedPages* const discarded = rewriter_.packaged() ? &rewriter_.discarded() : nullptr;
  if (!return_relay_.feed(bytes, discarded, said_)) {
    const StreamError& error = return_relay_.error();
    refuse_because(error.error_class, std::string(error.field) + ": " + error.text.data());
  } else if (return_relay_.shut() == 0U) {
    verdict_ = Verdict::accepted;
  }
  return 1;
}

uint32_t DestinationQemu::serve_multifd(uint64_t now_ns) {
  if (!multifd_.begun()) return 0;
  const uint32_t work = multifd_.do_work(rewriter_.sections_written(), now_ns);
  if (!multifd_.problem().empty() && !proved_) {
    // It may have said why before it went, or have wanted no further connection at all.
    (void)receive_some();
    if (verdict_ != Verdict::pending || proved_) return work;
    if (multifd_guessed_)
      multifd_.forget();  // a QEMU ignores connections that it does not want; its answer is late
    else
      refuse_because(ErrorClass::io, multifd_.problem());
  }
  return work;
}

uint32_t DestinationQemu::send_some(uint64_t now_ns) {
  if (rewriter_.in_postcopy() && !std::exchange(in_postcopy_, true) && settings_.on_postcopy)
    settings_.on_postcopy();
  // From its device state on the destination could run the guest.
  if (rewriter_.device_state_begun() && !memory_proved_again_) {
    if (!prove_memory()) return 0;
    memory_proved_again_ = true;
  }
  uint32_t work = 0;
  std::size_t sent = 0;
  const std::size_t most = link_.secured() ? kSealBytesMax : kSendBytesMax;
  for (Bytes bytes = fifo_.readable(); !bytes.empty() && sent < most; bytes = fifo_.readable()) {
    const std::size_t n = link_.send(bytes);
    if (n == 0) {
      if (link_.end() == DestinationLink::End::none) break;
      // It may have said why before it went.
      (void)receive_some();
      if (verdict_ == Verdict::pending) refuse_end("closed the connection");
      break;
    }
    fifo_.consume(n);
    sent += n;
    sent_ += n;
    last_sent_ns_ = now_ns;
    ++work;
    if (rewriter_.device_state_begun() && !memory_proved_again_) break;
  }
  return work;
}

uint32_t DestinationQemu::receive_some() {
  if (said_.size() - said_taken_ >= kSaidBytesMax) return 0;
  const std::size_t n = link_.receive(inbox_);
  if (n == 0) {
    if (link_.end() != DestinationLink::End::none)
      refuse_end("closed the connection before it had loaded the device state");
    return 0;
  }
  Bytes bytes{inbox_.data(), n};
  if (rewriter_.in_postcopy()) {
    // Of a message that was begun before, the rest.
    for (; reader_.mid_message() && !bytes.empty(); bytes = bytes.subspan(1)) read_messages(bytes.first(1));
    return verdict_ == Verdict::pending && !bytes.empty() ? relay(bytes) : 1;
  }
  read_messages(bytes);
  return 1;
}

void DestinationQemu::read_messages(Bytes bytes) {
  reader_.feed(bytes);
  ReturnPathMessage message;
  while (verdict_ == Verdict::pending && reader_.next(message)) take(message);
  if (verdict_ == Verdict::pending && reader_.error()) {
    error_ = reader_.error();
    error_.channel = ChannelName::main();
    verdict_ = Verdict::refused;
    abandon();
  }
}

void DestinationQemu::take(const ReturnPathMessage& message) {
  switch (message.type) {
    case ReturnPathType::switchover_ack:
      ++switchover_acks_;
      break;
    case ReturnPathType::pong:
      if (message.value == StreamRewriter::kAdvisePing && rewriter_.advised() && !advice_taken_)
        take_advice();
      if (message.value != StreamRewriter::kProofPing || proved_) break;
      if (!prove_alone()) break;
      proved_ = true;
      rewriter_.destination_proved();
      break;
    case ReturnPathType::shut:
      if (message.value != 0)
        refuse("could not load the device state (SHUT 1)", 0);
      else if (!memory_proved_again_)
        // Passed on, it would let the source believe that its guest is safe.
        refuse("says that it has loaded the guest (SHUT 0) before it was given device state: no QEMU does",
               0);
      else if (prove_memory())
        verdict_ = Verdict::accepted;
      break;
    case ReturnPathType::invalid:
    case ReturnPathType::req_pages_id:
    case ReturnPathType::req_pages:
    case ReturnPathType::recv_bitmap:
    case ReturnPathType::resume_ack:
      break;  // ReturnPathReader lets none of these pass
  }
}

void DestinationQemu::refuse_end(const char* eof) {
  switch (link_.end()) {
    case DestinationLink::End::none:
      break;
    case DestinationLink::End::closed:
      refuse(link_.error() == 0 || !link_.open() ? eof : "closed the connection", link_.error());
      break;
    case DestinationLink::End::tls_failed:
      refuse_because(ErrorClass::io, "TLS with " + settings_.address.text + ": " + link_.tls_problem());
      break;
    case DestinationLink::End::tls_late:
      refuse("does not finish the TLS handshake", ETIMEDOUT);
      break;
  }
}

void DestinationQemu::refuse(const char* what, int error) {
  const char* hint = "";
  if (rewriter_.advised() && !advice_taken_) hint = kPostcopyHint;
  if (connected_ && !proved_)
    hint = !link_.secured() ? kTlsHint : link_.open() ? kCertificateHint : kNoTlsHint;
  refuse_because(ErrorClass::io, settings_.address.text + " " + what + (error != 0 ? ": " : "") +
                                     (error != 0 ? std::strerror(error) : "") + "; its own log says why" +
                                     hint);
}

void DestinationQemu::refuse_because(ErrorClass error_class, const std::string& why) {
  error_ = make_error(error_class, sent_, "destination QEMU", "%s", why.c_str());
  error_.channel = ChannelName::main();
  verdict_ = Verdict::refused;
  abandon();
}

}  // namespace migrx

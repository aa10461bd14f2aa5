#include "tests/sim/simulation.h"

#include <algorithm>

namespace migrx::sim {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kSecond = 1'000 * kMs;
constexpr Ipv4Address kReceiver{0x0a4d0002};
constexpr Ipv4Address kSource{0x0a4d0001};
constexpr Ipv4Address kStranger{0x0a4d0009};

// The same host in the scenario's family.
IpAddress in_family(Ipv4Address host, const Scenario& scenario) {
  if (scenario.ipv6) return {0xfd00'0000'0000'0000, host.value};
  return host;
}

constexpr uint16_t kFirstPort = 40'000;
constexpr uint16_t kSecondPort = 45'000;
constexpr uint16_t kStrangerPort = 50'000;
constexpr uint64_t kPacketBytes = 1344;  // of a multifd packet without pages
// Something must move within this time: a byte, an epoch, the end of a connection. A peer that is gone is
// given up after kPeerTimeout, or as shipped (16 minutes) where there is an outage; TIME-WAIT takes 60 s.
constexpr uint64_t kProgressMax = 200 * kSecond;
constexpr uint64_t kProgressMaxShipped = 1100 * kSecond;
// From the moment at which the source's own repetition gets through, or what it waits for can get through,
// to the end of the migration.
constexpr uint64_t kEndAfterOutage = 5 * kSecond;
// And in all. Seven packet buffers, odd little segments and no SACK make honest senders slow, not stuck.
constexpr uint64_t kVirtualMax = 7200 * kSecond;
// From a source's cancellation to the end of the session: less than the watchdog of a barrier, which is for
// sources that are there.
constexpr uint64_t kDepartureMax = 45 * kSecond;
constexpr uint64_t kStart = 1 * kSecond;
// An agent whose turn does not come is late by so much at most: time goes in large steps while nothing
// happens, and what the receiver promises in seconds it cannot keep on a host that gives a thread none.
constexpr uint64_t kLateMax = 500 * kMs;
// Turns of an agent in which it had nothing to do since anything happened; a turn may look at some of its
// connections only.
constexpr uint32_t kSettledTurns = 6;
// Turns in a row in which nothing happens although some agent did not get its turn.
constexpr uint32_t kLazyTurns = 200;

EthernetAddress mac_of(uint8_t last) {
  return {{std::byte{2}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{last}}};
}

TcpSenderOptions sender_options(Random& random, Ipv4Address from, uint16_t port, const Scenario& scenario) {
  TcpSenderOptions options;
  options.tuple = {in_family(kReceiver, scenario), in_family(from, scenario), kPort, port};
  options.link = {mac_of(2), mac_of(from == kSource ? 1 : 9), 0, 0};
  // Often close to the wrap of sequence numbers.
  options.iss = random.chance(0.5) ? static_cast<uint32_t>(0 - random.below(200'000))
                                   : static_cast<uint32_t>(random.next());
  options.mss = static_cast<uint16_t>(scenario.receiver.mtu - (scenario.ipv6 ? 60 : 40));
  options.timestamps = random.chance(0.7);
  options.sack = random.chance(0.7);
  options.window_scaling = random.chance(0.8);
  options.congestion_control = random.chance(0.8);
  options.probe_with_data = random.chance(0.5);
  options.uneven_segments = random.chance(0.2);
  options.detect_black_holes = scenario.fault == Fault::mtu_changes;
  options.buffer_bytes = static_cast<uint32_t>(random.between(4, 128)) << 10;
  if (scenario.fault == Fault::tiny_segments)
    options.segment_max = static_cast<uint32_t>(random.between(20, 400));
  return options;
}

}  // namespace

Simulation::Simulation(const Scenario& scenario, uint64_t seed,
                       const std::vector<std::vector<uint64_t>>& ends)
    : scenario_(scenario),
      random_(seed * 2),
      source_(scenario.source, random_.fork()),
      receiver_(scenario.receiver, source_, random_),
      to_receiver_(scenario.to_receiver, random_.fork()),
      to_source_(scenario.to_source, random_.fork()),
      turn_ns_(receiver_.agents(), now_ns_),
      quiet_turns_(receiver_.agents()) {
  std::vector<TcpSender*> connections;
  for (uint32_t i = 0; i <= scenario.source.channels; ++i) {
    senders_.push_back(std::make_unique<TcpSender>(
        sender_options(random_, kSource, static_cast<uint16_t>(kFirstPort + i), scenario), random_.fork()));
    connections.push_back(senders_.back().get());
  }
  const bool second = scenario.fault == Fault::second_vm;
  source_.attach(connections, random_, now_ns_ + (second ? random_.below(scenario.apart_ns) : 0));

  const auto stranger = [&](Stranger::Manner manner) {
    const auto port = static_cast<uint16_t>(kStrangerPort + strangers_.size());
    // Who speaks second may connect first.
    const uint64_t at_ns =
        scenario.fault == Fault::second_main && random_.chance(0.7)
            ? UINT64_MAX
            : now_ns_ + random_.below(scenario.crowd_ns > 0 ? scenario.crowd_ns : 20 * kMs);
    strangers_.push_back(std::make_unique<Stranger>(sender_options(random_, kStranger, port, scenario),
                                                    manner, at_ns, random_.fork(), source_));
  };
  switch (scenario.fault) {
    case Fault::none:
    case Fault::syn_flood:
    case Fault::slow_loader:
      break;
    case Fault::second_vm:
      second_ = std::make_unique<Source>(scenario.second, random_.fork());
      if (!scenario.second_late) begin_second(now_ns_ + random_.below(scenario.apart_ns));
      break;
    case Fault::tiny_segments:
      fault_at_ns_ = now_ns_ + 300 * kSecond;
      break;
    case Fault::strangers:
      if (scenario.crowd_ns > 0) {
        using enum Stranger::Manner;
        const Stranger::Manner speaks[] = {web, noise, tls};
        const bool mute = random_.chance(0.3);
        for (uint64_t n = mute ? random_.between(14, 40) : random_.between(5, 14); n > 0; --n)
          stranger(mute ? silent : random_.pick(speaks));
        break;
      }
      // Now and then more of them than there are places.
      for (uint64_t n = random_.chance(0.25) ? random_.between(5, 13) : random_.between(1, 3); n > 0; --n) {
        const uint64_t manner = random_.below(6);
        stranger(manner == 5 ? Stranger::Manner::tls : static_cast<Stranger::Manner>(manner));
      }
      break;
    case Fault::second_main: {
      using enum Stranger::Manner;
      const Stranger::Manner manners[] = {second_main, second_main, multifd, tls};
      stranger(random_.pick(manners));
      break;
    }
    case Fault::hostile_channel:
      stranger(Stranger::Manner::multifd);
      break;
    case Fault::stuck_window:
      changes_left_ = 1;
      fault_at_ns_ = now_ns_ + random_.below(scenario.stuck_within_ns);
      break;
    case Fault::pool_exhausted:
      changes_left_ = 2 * static_cast<uint32_t>(random_.between(1, 6));
      fault_at_ns_ = now_ns_ + random_.below(10 * kMs);
      break;
    case Fault::mtu_changes:
      changes_left_ = static_cast<uint32_t>(random_.between(1, 6));
      fault_at_ns_ = now_ns_ + random_.below(10 * kMs);
      break;
    case Fault::channel_ends:
    case Fault::damaged_stream:
      spoil(ends);
      break;
    case Fault::source_vanishes:
    case Fault::source_cancels:
    case Fault::operator_cancels:
      if (!scenario.cancel_at_last_byte) fault_at_ns_ = now_ns_ + random_.below(40 * kMs);
      break;
    case Fault::outage:
      if (scenario.outage_moment == Scenario::Moment::any) fault_at_ns_ = now_ns_ + random_.below(40 * kMs);
      break;
  }
}

void Simulation::begin_second(uint64_t at_ns) {
  std::vector<TcpSender*> connections;
  for (uint32_t i = 0; i <= scenario_.second.channels; ++i) {
    second_senders_.push_back(std::make_unique<TcpSender>(
        sender_options(random_, kSource, static_cast<uint16_t>(kSecondPort + i), scenario_), random_.fork()));
    connections.push_back(second_senders_.back().get());
  }
  second_->attach(connections, random_, at_ns);
}

bool Simulation::is_seconds(const Handoff* connection) const {
  if (connection == nullptr) return false;
  const std::string peer = connection->peer.data();
  const int port = std::stoi(peer.substr(peer.rfind(':') + 1));
  return port >= kSecondPort && port < kStrangerPort;
}

// Whatever the order in which two VMs come: main and all channels are one VM's, and never are both told that
// all is well, nor one of them when it is not.
void Simulation::check_second() {
  if (second_ == nullptr) return;
  const Session& session = receiver_.session();
  const bool told = scenario_.second.return_path && second_->outcome() == Source::Outcome::completed;
  if (told && session.state() == SessionState::failed)
    complain("failed although the second VM was told that all is well");
  if (told && scenario_.source.return_path && source_.outcome() == Source::Outcome::completed)
    complain("both VMs were told that all is well");
  if (mixed_ && session.state() == SessionState::done) complain("done with the channels of two VMs");
}

// Any byte of a connection is as likely as any other; but half of the tears lie between two packets, where an
// end looks like a good one. Chance takes the same course whether the ends are known or not.
void Simulation::spoil(const std::vector<std::vector<uint64_t>>& ends) {
  std::size_t i = random_.below(senders_.size());
  Random random = random_.fork();
  if (ends.empty() || ends[i].empty()) return;
  if (scenario_.fault == Fault::channel_ends) {
    const auto how = static_cast<Source::Tear>(random.between(1, 3));
    const uint64_t at = ends[i].size() > 1 && random.chance(0.5) ? ends[i][random.below(ends[i].size() - 1)]
                                                                 : random.below(ends[i].back());
    source_.tear(i, at, how);
    return;
  }
  if (scenario_.damage_last_packet && ends.size() > 1) {
    i = random.between(1, ends.size() - 1);
    if (ends[i].empty()) return;
    // Most of a packet without pages is padding; magic, version and flags come first.
    const uint64_t bytes = ends[i].back();
    source_.damage(i, bytes - std::min(bytes, kPacketBytes) + random.below(12), 0.5, random.fork());
    return;
  }
  const double chances[] = {1e-5, 1e-4, 1e-2, 0.5};
  source_.damage(i, random.below(ends[i].back()), random.pick(chances), random.fork());
}

TcpSender* Simulation::sender_of(uint16_t port) {
  if (port >= kFirstPort && port < kFirstPort + senders_.size()) return senders_[port - kFirstPort].get();
  if (port >= kSecondPort && port < kSecondPort + second_senders_.size())
    return second_senders_[port - kSecondPort].get();
  if (port >= kStrangerPort && port < kStrangerPort + strangers_.size())
    return &strangers_[port - kStrangerPort]->sender();
  return nullptr;
}

void Simulation::send(std::vector<Packet>& packets) {
  for (Packet& packet : packets) {
    digest_ = (digest_ ^ now_ns_ ^ packet.size()) * 0x100000001b3ULL;
    if (lost_at_first(packet))
      disturbed_ = true;
    else
      to_receiver_.send(std::move(packet), now_ns_);
  }
  packets.clear();
}

// What a path loses while it is being learnt: SYNs of one connection, the first bytes of others.
bool Simulation::lost_at_first(const Packet& packet) {
  const bool bytes_lost = now_ns_ < bytes_lost_until_ns_;
  if (scenario_.greeting_loss == 0 && scenario_.syn_lost_ns == 0 && !bytes_lost) return false;
  TcpSegment segment;
  if (parse_segment(packet, static_cast<uint32_t>(packet.size()), segment) != WireCounter::segment_ok)
    return false;
  const uint16_t port = segment.tuple.remote_port;
  if (segment.has(tcp_flag::syn))
    return port == kFirstPort + scenario_.source.channels && now_ns_ < kStart + scenario_.syn_lost_ns;
  if (bytes_lost && port >= kFirstPort && port < kSecondPort) return segment.payload_length > 0;
  return segment.length() > 0 && greeted_.insert(port).second && random_.chance(scenario_.greeting_loss);
}

// The moments that matter: the guest stands still from the switchover on.
bool Simulation::outage_due() const {
  // A handshake has bounds of its own.
  if (receiver_.session().main_connection() == nullptr ||
      receiver_.session().multifd_identified() != scenario_.source.channels)
    return false;
  switch (scenario_.outage_moment) {
    case Scenario::Moment::any:
      return fault_at_ns_ <= now_ns_;
    case Scenario::Moment::switchover:
      return source_.ops_left() <= 3;
    case Scenario::Moment::device_state:
      return receiver_.session().state() == SessionState::device_state;
    case Scenario::Moment::verdict:
      return receiver_.accepted();
  }
  return false;
}

void Simulation::watch_outage() {
  if (scenario_.fault != Fault::outage) return;
  if (away_from_ns_ == UINT64_MAX && outage_due()) {
    fault_at_ns_ = UINT64_MAX;
    away_from_ns_ = now_ns_;
    away_until_ns_ = now_ns_ + scenario_.outage_ns;
    to_receiver_.set_away(true);
    to_source_.set_away(true);
  }
  if (away_until_ns_ <= now_ns_) {
    away_until_ns_ = UINT64_MAX;
    to_receiver_.set_away(false);
    to_source_.set_away(false);
    came_back();
    for (const auto& sender : senders_) awaited_.push_back(!sender->all_acknowledged());
  }
}

// A source's connection sends again what was lost in the outage. A probe of a closed window with a byte is
// not taken, and that byte comes again when the source's timer says so: seed 980465260, where it did after 7
// s.
void Simulation::note_repetition(const Packet& packet) {
  if (std::find(awaited_.begin(), awaited_.end(), true) == awaited_.end()) return;
  TcpSegment segment;
  if (parse_segment(packet, static_cast<uint32_t>(packet.size()), segment) != WireCounter::segment_ok) return;
  const std::size_t i = segment.tuple.remote_port - std::size_t{kFirstPort};
  if (i >= awaited_.size() || !awaited_[i] || segment.length() == 0) return;
  if (senders_[i]->beyond_window(segment.seq)) return;
  awaited_[i] = false;
  came_back();
}

void Simulation::came_back() {
  back_ns_ = now_ns_;
  damaged_until_back_ = to_receiver_.corrupted + to_source_.corrupted;
}

bool Simulation::deliver() {
  bool busy = false;
  watch_outage();
  Packet packet;
  bool damaged = false;
  while (to_receiver_.receive(now_ns_, packet, damaged)) {
    busy = true;
    // Connections are spread by their port; now and then a frame comes by the wrong queue.
    uint32_t core = 0;
    if (receiver_.cores() > 1)
      core = random_.chance(scenario_.astray)
                 ? static_cast<uint32_t>(random_.below(receiver_.cores()))
                 : static_cast<uint32_t>(packet.size() > 35 ? packet[35] : std::byte{0}) % receiver_.cores();
    Port& port = receiver_.port(core);
    // A port whose poll core stands still drops it, as the link does: seed 1031369014.
    if (!damaged && port.has_room()) note_repetition(packet);
    port.arrive(std::move(packet), damaged);
  }
  while (to_source_.receive(now_ns_, packet, damaged)) {
    busy = true;
    const Bytes frame{packet};
    TcpSegment segment;
    if (parse_segment(frame, static_cast<uint32_t>(frame.size()), segment) != WireCounter::segment_ok)
      continue;
    if (!ip_checksum_ok(segment, frame) || !tcp_checksum_ok(segment, std::span{&frame, 1})) continue;
    if (TcpSender* const sender = sender_of(segment.tuple.local_port))
      sender->on_segment(segment, frame.subspan(segment.payload_offset, segment.payload_length), now_ns_);
  }
  return busy;
}

bool Simulation::move_source() {
  bool busy = source_.step(now_ns_) > 0;
  if (second_ != nullptr) {
    if (second_senders_.empty() && receiver_.session().admission().complete()) begin_second(now_ns_);
    if (!second_senders_.empty()) busy = second_->step(now_ns_) > 0 || busy;
    if (stalled_until_ns_ == 0 && receiver_.session().admission().surplus() > 0) {
      stalled_until_ns_ = now_ns_ + scenario_.stuck_after_refusal_ns;
      bytes_lost_until_ns_ = now_ns_ + scenario_.bytes_lost_after_refusal_ns;
    }
  }
  if (scenario_.cancel_at_last_byte && left_ns_ == UINT64_MAX && source_.all_written()) cause_fault();
  if (fault_at_ns_ <= now_ns_) cause_fault();
  const bool known = strangers_.empty() || receiver_.knows(in_family(kSource, scenario_));
  if (scenario_.fault == Fault::second_main && known)
    strangers_.front()->come_at(now_ns_ + random_.below(5 * kMs));
  for (const auto& stranger : strangers_) {
    stranger->step(now_ns_, known || scenario_.fault != Fault::second_main);
    spoke_first_ = spoke_first_ || (stranger->said() && !known);
  }
  if (scenario_.fault == Fault::syn_flood && now_ns_ < 3 * kSecond && random_.chance(0.2)) {
    TcpSenderOptions options =
        sender_options(random_, Ipv4Address{static_cast<uint32_t>(random_.next())},
                       static_cast<uint16_t>(random_.between(1024, 39'999)), scenario_);
    TcpSender flood(options, random_.fork());
    flood.connect(now_ns_);
    flood.poll(now_ns_, outgoing_);
  }
  for (const auto& sender : senders_) sender->poll(now_ns_, outgoing_);
  for (const auto& sender : second_senders_) sender->poll(now_ns_, outgoing_);
  for (const auto& stranger : strangers_) stranger->sender().poll(now_ns_, outgoing_);
  busy = busy || !outgoing_.empty();
  send(outgoing_);
  return busy;
}

bool Simulation::settled(uint32_t agent) const {
  return quiet_turns_[agent] >= kSettledTurns;
}

void Simulation::unsettle() {
  std::fill(quiet_turns_.begin(), quiet_turns_.end(), 0);
}

// A worker that the run's fault holds up.
bool Simulation::stands_still(uint32_t agent) const {
  if (now_ns_ >= stalled_until_ns_ || !receiver_.is_worker(agent)) return false;
  return scenario_.fault == Fault::stuck_window || scenario_.fault == Fault::second_vm ||
         (scenario_.fault == Fault::slow_loader && agent == receiver_.cores());
}

// Who gets a turn now. An agent that has settled has nothing to do: whether it is passed over is of no
// matter.
void Simulation::draw_turns() {
  drawn_ = true;
  passed_over_ = false;
  turns_.clear();
  const auto agents = static_cast<uint32_t>(turn_ns_.size());
  for (uint32_t n = 0; n < agents; ++n) {
    const auto i = static_cast<uint32_t>(random_.below(agents));
    if (stands_still(i)) continue;
    uint32_t pace = scenario_.control_pace;
    if (i < receiver_.cores()) pace = scenario_.poll_pace;
    if (receiver_.is_worker(i)) {
      pace = scenario_.worker_pace;
      if (scenario_.fault == Fault::slow_loader && random_.chance(0.0005))
        stalled_until_ns_ = now_ns_ + random_.below(400 * kMs);
    }
    if (random_.below(1000) < pace)
      turns_.push_back(i);
    else
      passed_over_ = passed_over_ || !settled(i);
  }
  for (uint32_t i = 0; i < agents; ++i)
    if (turn_ns_[i] + kLateMax < now_ns_ && !stands_still(i)) turns_.push_back(i);
}

bool Simulation::move_receiver() {
  bool busy = false;
  if (!drawn_) draw_turns();
  drawn_ = false;
  for (const uint32_t i : turns_) {
    turn_ns_[i] = now_ns_;
    ++quiet_turns_[i];
    if (receiver_.turn(i, now_ns_) == 0) continue;
    busy = true;
    unsettle();
  }
  for (uint32_t core = 0; core < receiver_.cores(); ++core) {
    for (Packet& packet : receiver_.port(core).sent) {
      busy = true;
      TcpSegment segment;
      if (parse_segment(packet, static_cast<uint32_t>(packet.size()), segment) == WireCounter::segment_ok)
        if (TcpSender* const sender = sender_of(segment.tuple.local_port)) sender->watch(segment);
      digest_ = (digest_ ^ now_ns_ ^ packet.size()) * 0x100000001b3ULL;
      to_source_.send(std::move(packet), now_ns_);
    }
    receiver_.port(core).sent.clear();
  }
  idle_turns_ = busy ? 0 : idle_turns_ + 1;
  return busy || (passed_over_ && idle_turns_ < kLazyTurns);
}

bool Simulation::tick() {
  bool busy = deliver();
  busy = move_source() || busy;
  if (busy) unsettle();
  const bool moved = move_receiver();
  lazy_ = !busy && moved && idle_turns_ > 0;
  return busy || moved;
}

// When something happens that is not an agent's doing: a frame comes, a timer of a sender, a fault. What was
// due has been done, so a moment that has passed means nothing.
uint64_t Simulation::next_event_ns() const {
  uint64_t next = UINT64_MAX;
  const auto sooner = [&](uint64_t at_ns) {
    if (at_ns > now_ns_) next = std::min(next, at_ns);
  };
  sooner(to_receiver_.next_ns());
  sooner(to_source_.next_ns());
  sooner(source_.next_ns());
  sooner(fault_at_ns_);
  sooner(away_until_ns_);
  for (const auto& sender : senders_) sooner(sender->next_ns());
  if (!second_senders_.empty()) sooner(second_->next_ns());
  for (const auto& sender : second_senders_) sooner(sender->next_ns());
  for (const auto& stranger : strangers_) {
    sooner(stranger->next_ns());
    sooner(stranger->sender().next_ns());
  }
  return next;
}

void Simulation::give_time(bool busy) {
  const uint64_t event_ns = next_event_ns();
  if (busy) {
    idle_ns_ = 0;
    now_ns_ += random_.between(200, 20'000);
    if (lazy_) wait_for_turn(event_ns);
    return;
  }
  // Nothing to do: on to the next event. The receiver's own timers are not visible, so the step is bounded,
  // and grows while nothing happens.
  const uint64_t step_ns = std::clamp<uint64_t>(idle_ns_ / 4, 20'000, 20 * kMs);
  const uint64_t before = now_ns_;
  now_ns_ = std::min(event_ns, before + step_ns);
  idle_ns_ += now_ns_ - before;
}

// Time goes in small steps until an agent gets a turn, and nothing else happens: two of three steps of a run
// are such, so nobody else is asked in them.
void Simulation::wait_for_turn(uint64_t event_ns) {
  if (scenario_.fault == Fault::syn_flood) return;  // which goes on meanwhile
  while (now_ns_ < event_ns && idle_turns_ < kLazyTurns) {
    draw_turns();
    if (!passed_over_ ||
        !std::all_of(turns_.begin(), turns_.end(), [this](uint32_t i) { return settled(i); }))
      return;
    drawn_ = false;
    ++idle_turns_;
    now_ns_ += random_.between(200, 20'000);
  }
}

void Simulation::cause_fault() {
  fault_at_ns_ = UINT64_MAX;
  if (receiver_.control().over()) return;
  switch (scenario_.fault) {
    case Fault::source_vanishes:
      fault_caused_ = source_.outcome() == Source::Outcome::running;
      if (fault_caused_) source_.vanish();
      break;
    case Fault::source_cancels:
      fault_caused_ = source_.outcome() == Source::Outcome::running;
      if (fault_caused_) source_.die(random_.chance(0.5));
      left_ns_ = now_ns_;
      break;
    case Fault::stuck_window:
      // Longer than each watchdog's time, now and then.
      stalled_until_ns_ = now_ns_ + random_.between(1, random_.chance(0.3) ? 100 : 40) * kSecond;
      break;
    case Fault::pool_exhausted:
      take_buffers();
      break;
    case Fault::mtu_changes:
      change_path();
      break;
    case Fault::tiny_segments:
    case Fault::operator_cancels:
      fault_caused_ = true;
      receiver_.control().cancel();
      break;
    default:
      break;
  }
}

// Somebody else holds the packet buffers, all or nearly all of them; then they come back.
void Simulation::take_buffers() {
  const bool taken = changes_left_ % 2 == 1;
  if (taken)
    receiver_.give_buffers_back();
  else
    receiver_.take_buffers(random_.chance(0.5) ? 0 : static_cast<uint32_t>(random_.below(8)));
  if (--changes_left_ > 0) fault_at_ns_ = now_ns_ + random_.between(1, taken ? 20 : 3000) * kMs;
}

// A router with a smaller MTU that tells nobody; the last change takes it away.
void Simulation::change_path() {
  --changes_left_;
  const std::size_t mtus[] = {576, 1280, 1500, 4000};
  to_receiver_.options().mtu = changes_left_ == 0 ? scenario_.receiver.mtu : random_.pick(mtus);
  for (const auto& sender : senders_) sender->path_grew();
  if (changes_left_ > 0) fault_at_ns_ = now_ns_ + random_.between(1, 5000) * kMs;
}

// A stranger said what only the source knows to say before the source did, and may have written to RAM.
// Behind the source's first channel it comes from another address, and disturbs nobody.
bool Simulation::intruded() const {
  return scenario_.fault == Fault::hostile_channel && spoke_first_;
}

// Two guests must never run, nor none: the source is told that all is well only if it is, and then it stays
// so. One that closed before SHUT 0 reached it was not told.
bool Simulation::told_well_but_failed() const {
  return scenario_.source.return_path && source_.outcome() == Source::Outcome::completed &&
         receiver_.session().state() == SessionState::failed;
}

// A window promises bytes: where no frame was lost, damaged, late or sent twice, each has a place.
void Simulation::check_promise() {
  if (disturbed_) return;
  disturbed_ = receiver_.cores() > 1 || second_ != nullptr || !strangers_.empty() ||
               to_receiver_.disturbed() || receiver_.port(0).rx_missed + receiver_.port(0).rx_no_buffer > 0;
  for (const auto& sender : senders_) disturbed_ = disturbed_ || sender->retransmissions > 0;
  // A probe of a closed window is sent again in other pieces, other MTUs make other segments, and a few
  // buffers do not do for odd ones (docs/distrust.md, Open).
  disturbed_ = disturbed_ || scenario_.fault == Fault::mtu_changes || scenario_.receiver.quota < 63 ||
               receiver_.read(TcpCounter::out_of_order) + receiver_.read(TcpCounter::zero_window_probe) > 0;
  if (!disturbed_ && receiver_.read(TcpCounter::over_quota) > 0)
    complain("a segment inside the window was refused although nothing was lost");
}

// A source that has gone is noticed by that, not by a watchdog of sources that are there. What it closed in
// good order may be whole while channels are missing, and a reset may be lost.
void Simulation::check_departure() {
  if (left_ns_ == UINT64_MAX || now_ns_ < left_ns_ + kDepartureMax || receiver_.control().over()) return;
  const Session& session = receiver_.session();
  if (session.identified() == 0) return;
  const bool may_be_whole =
      session.admission().main_connection() != nullptr && !session.admission().complete();
  const bool heard = std::all_of(senders_.begin(), senders_.end(), [](const auto& sender) {
    return sender->state() == TcpSender::State::finished;
  });
  if (heard && !may_be_whole) complain("the source has gone, and nobody noticed: " + session.standing());
}

void Simulation::check_always() {
  check_promise();
  check_departure();
  if (completed_ns_ == 0 && source_.outcome() == Source::Outcome::completed) completed_ns_ = now_ns_;
  if (!source_.violation().empty() && !source_.damaged()) complain(source_.violation());
  for (const auto& sender : senders_)
    if (!sender->violation().empty()) complain(sender->violation());
  for (const auto& sender : second_senders_)
    if (!sender->violation().empty()) complain(sender->violation());
  for (const auto& stranger : strangers_)
    if (!stranger->sender().violation().empty()) complain(stranger->sender().violation());
  // As soon as it is known: given back, its place may be taken by another connection.
  if (!main_known_ && receiver_.session().main_connection() != nullptr) {
    main_known_ = true;
    seconds_main_ = is_seconds(receiver_.session().main_connection());
    // Guests without a uuid look alike: one's main may be admitted with the other's channels. It writes, and
    // must fail.
    for (uint32_t i = 0; i + 1 < receiver_.session().channels_expected(); ++i)
      mixed_ = mixed_ || is_seconds(receiver_.session().multifd_connection(i)) != seconds_main_;
  }
  check_second();
  if (!receiver_.difference().empty() && !source_.damaged() && !intruded() && !seconds_main_ && !mixed_)
    complain(receiver_.difference());
  if (told_well_but_failed())
    complain("failed although the source was told that all is well: " +
             receiver_.session().error().message());
  for (uint32_t core = 0; core < receiver_.cores(); ++core)
    if (receiver_.port(core).rx_no_buffer > 0 && scenario_.fault != Fault::pool_exhausted)
      complain("the pool ran out of packet buffers although it has its stated minimum");
}

// What the second VM's channels brought was dropped, and its main was not heard before RAM was complete: they
// are taken for channels of the first one's own, whose pages are missing.
bool Simulation::taken_for_own() const {
  const Session& session = receiver_.session();
  return session.admission().surplus() > 0 && session.admission().rivals() == 0 &&
         std::string_view(session.error().field) == "multifd channel: count";
}

bool Simulation::must_be_done() const {
  switch (scenario_.fault) {
    case Fault::none:
    case Fault::strangers:
    case Fault::syn_flood:
    case Fault::slow_loader:
    case Fault::second_main:
    case Fault::stuck_window:
    case Fault::pool_exhausted:
    case Fault::mtu_changes:
    case Fault::outage:
      return true;
    case Fault::hostile_channel:
      return !intruded();
    case Fault::second_vm:
      return scenario_.second_late && !taken_for_own();
    case Fault::channel_ends:
      return !source_.torn();
    case Fault::damaged_stream:
      return !source_.damaged();
    case Fault::tiny_segments:  // with three buffers slow enough for the operator to end it
    case Fault::source_vanishes:
    case Fault::source_cancels:
    case Fault::operator_cancels:
      return !fault_caused_;
  }
  return true;
}

void Simulation::check_progress() {
  uint64_t progress = receiver_.epochs_checked() + (receiver_.control().over() ? 1 : 0) + (retired_ ? 1 : 0) +
                      (100 - receiver_.connections_in_use());
  for (const auto& sender : senders_) progress += sender->acknowledged();
  if (progress != progress_) {
    progress_ = progress;
    progress_ns_ = now_ns_;
  }
  const uint64_t most = scenario_.fault == Fault::outage ? kProgressMaxShipped : kProgressMax;
  if (now_ns_ - progress_ns_ < most && now_ns_ < kVirtualMax) return;
  if (source_.damaged() && !fault_caused_) {
    // Device state whose end cannot be found any more: only the operator can tell that nothing will come.
    fault_caused_ = true;
    progress_ns_ = now_ns_;
    receiver_.control().cancel();
    return;
  }
  if (retired_)
    complain("connections stay in use: " + std::to_string(receiver_.connections_in_use()));
  else
    complain((now_ns_ < kVirtualMax ? "no progress: " : "no end within the bound of virtual time: ") +
             receiver_.session().standing());
}

RunResult Simulation::run() {
  while (problem_.empty()) {
    const bool busy = tick();
    check_always();
    SessionControl& control = receiver_.control();
    if (control.over() && !retired_ && receiver_.serving() == 0) {
      receiver_.retire();
      retired_ = true;
      check_end();
    }
    if (retired_ && receiver_.connections_in_use() == 0 && to_receiver_.idle()) break;
    // A source that died before it said anything leaves a receiver that waits: the operator ends it.
    if (!control.over() && receiver_.session().state() == SessionState::listening &&
        now_ns_ > 100 * kSecond && (source_.outcome() == Source::Outcome::failed || source_.torn()))
      control.cancel();
    check_progress();
    give_time(busy);
  }
  receiver_.give_buffers_back();
  // A stranger's frame may still lie in a queue: some more turns for everybody, without the network.
  for (int i = 0; i < 20; ++i)
    for (uint32_t agent = 0; agent < receiver_.agents(); ++agent)
      (void)receiver_.turn(agent, now_ns_ += 1000);
  if (problem_.empty() && receiver_.connections_in_use() > 0) complain("connections came back to life");
  if (problem_.empty() && receiver_.buffers_out() > 0)
    complain(std::to_string(receiver_.buffers_out()) + " packet buffers did not come back");

  RunResult result;
  result.problem = problem_;
  result.summary = describe(scenario_) + "; " + receiver_.counters();
  if (!problem_.empty())
    for (const auto& sender : senders_)
      result.summary += "\n  port " + std::to_string(sender->tuple().local_port) + ": " + sender->describe();
  result.state = receiver_.session().state();
  result.virtual_ns = now_ns_;
  result.frames = to_receiver_.sent + to_source_.sent;
  result.epochs = receiver_.epochs_checked();
  result.pages = source_.pages_sent();
  result.lost = to_receiver_.lost + to_source_.lost + to_receiver_.corrupted + to_source_.corrupted;
  for (const auto& sender : senders_) result.retransmissions += sender->retransmissions;
  result.digest = digest_;
  return result;
}

// The session is over and has let go of everything.
void Simulation::check_end() {
  const SessionState state = receiver_.session().state();
  const bool return_path = scenario_.source.return_path;
  if (state == SessionState::done) {
    if (receiver_.data_path_allocations() > 0)
      complain(std::to_string(receiver_.data_path_allocations()) + " allocations on the data path");
    if (source_.damaged()) return;  // damaged page contents look like any other
    if (seconds_main_) return;      // and the first VM goes on
    // Without a return path the end of main is the only sign that the device state is over.
    if (return_path && !source_.all_written()) complain("done before the source had sent everything");
    const std::string difference = receiver_.compare_final();
    if (!difference.empty()) complain(difference);
    // A frame that is damaged when the path is back waits for a timer that the outage has backed off: seed
    // 991316512, where it was 8 s.
    const bool clean = damaged_until_back_ == to_receiver_.corrupted + to_source_.corrupted &&
                       scenario_.to_source.loss == 0 && scenario_.to_receiver.loss == 0 &&
                       scenario_.to_receiver.clog == 0 && scenario_.to_source.clog == 0 &&
                       scenario_.receiver.port.tx_fails == 0;
    // What is left of RAM goes slowly through the fewest packet buffers, and is over soon through more.
    const bool quick =
        scenario_.outage_moment >= Scenario::Moment::device_state || scenario_.receiver.quota >= 63;
    if (clean && quick && return_path && back_ns_ != UINT64_MAX &&
        std::find(awaited_.begin(), awaited_.end(), true) == awaited_.end() &&
        completed_ns_ > back_ns_ + kEndAfterOutage)
      complain("the end took " + std::to_string((completed_ns_ - back_ns_) / kMs) + " ms after the outage");
    if (left_ns_ != UINT64_MAX && fault_caused_ && return_path &&
        source_.outcome() != Source::Outcome::completed &&
        (!receiver_.control().source_unsure() || senders_.front()->state() == TcpSender::State::finished))
      complain("done, but the source had cancelled and has its guest");
    if (scenario_.fault == Fault::outage && receiver_.control().source_unsure())
      complain("an outage was given up");
    if (return_path && !fault_caused_ && !source_.torn() && source_.outcome() != Source::Outcome::completed)
      complain("done, but the source never read SHUT 0");
    return;
  }
  if (state != SessionState::failed) {
    complain(std::string("over in state ") + to_string(state));
    return;
  }
  const StreamError& error = receiver_.session().error();
  if (must_be_done()) complain("failed without reason: " + error.message());
  if (error.message().empty()) complain("failed without an error");
}

RunResult run_scenario(const Scenario& scenario, uint64_t seed) {
  std::vector<std::vector<uint64_t>> ends;
  if (scenario.fault == Fault::channel_ends || scenario.fault == Fault::damaged_stream) {
    // Up to the first byte that is torn or damaged, the second run is the same as this one.
    Simulation whole(scenario, seed, {});
    const RunResult result = whole.run();
    if (!result.problem.empty()) return result;
    ends = whole.ends();
  }
  Simulation simulation(scenario, seed, ends);
  return simulation.run();
}

RunResult run_seed(uint64_t seed) {
  return run_scenario(scenario_of(seed), seed);
}

}  // namespace migrx::sim

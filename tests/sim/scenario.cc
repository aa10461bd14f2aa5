#include <cstdio>

#include "tests/sim/simulation.h"

namespace migrx::sim {
namespace {

LinkOptions link_of(Random& random, uint32_t roughness, uint32_t mtu) {
  LinkOptions link;
  const uint64_t delays[] = {2'000, 10'000, 50'000, 400'000};
  link.delay_ns = random.pick(delays);
  const uint64_t rates[] = {1'000, 10'000, 25'000, 100'000};
  link.bits_per_us = random.pick(rates);
  link.mtu = mtu;
  if (roughness == 0) return link;
  const double loss[] = {0, 0.001, 0.01, 0.05};
  link.loss = random.pick(loss);
  if (random.chance(0.4)) link.duplicate = random.pick(loss);
  if (random.chance(0.5)) {
    link.reorder = random.pick(loss) * 4;
    link.reorder_ns = random.between(1'000, 500'000);
  }
  if (random.chance(0.4)) link.jitter_ns = random.between(1, 100'000);
  if (random.chance(0.3)) link.corrupt = random.pick(loss) / 2;
  if (random.chance(0.2)) link.truncate = random.pick(loss) / 2;
  if (random.chance(0.2)) {
    link.clog = 0.002;
    link.clog_ns = random.between(100'000, 50'000'000);
  }
  if (random.chance(0.3)) link.queue_ns_max = random.between(20'000, 500'000);
  return link;
}

}  // namespace

const char* to_string(Fault fault) {
  constexpr const char* kNames[kFaults + 1] = {
      "none",         "strangers",       "syn flood",      "slow loader",      "tiny segments",
      "channel ends", "source vanishes", "source cancels", "operator cancels", "damaged stream",
      "second main",  "hostile channel", "stuck window",   "pool exhausted",   "MTU changes",
      "outage",       "second VM"};
  return kNames[static_cast<std::size_t>(fault)];
}

namespace {

// A guest whose migration is over within a few milliseconds.
void shorten(SourceOptions& source, Random& random) {
  source.pages = std::min(source.pages, 6U);
  source.parts = std::min(source.parts, 1U);
  source.small_pages = std::min(source.small_pages, 1U);
  source.tail_bytes = random.below(200);
}

void clear_links(Scenario& s, Random& random) {
  s.to_receiver = link_of(random, 0, s.receiver.mtu);
  s.to_source = link_of(random, 0, s.receiver.mtu);
  s.receiver.port.rx_descriptors = std::max(s.receiver.port.rx_descriptors, 256U);
  s.receiver.port.tx_fails = 0;
}

// Paths on which faults of old were found by one seed in tens of thousands; scripts/mutants --found tells how
// many it takes now. After everything else, so that the other seeds stay as they are.
void make_frequent(Scenario& s, Random& random) {
  switch (s.fault) {
    case Fault::none:
      // One channel of a source connects late, by a SYN that was sent up to seven times.
      if (s.source.channels == 0 || !random.chance(0.06)) break;
      clear_links(s, random);
      s.syn_lost_ns = random.between(1, 60) * 1'000'000'000;
      break;
    case Fault::hostile_channel:
      // The same beside somebody who has taken none of its places: whose channel it is, is not known until
      // then.
      if (s.source.channels == 0 || !random.chance(0.2)) break;
      clear_links(s, random);
      s.syn_lost_ns = random.between(1, 60) * 1'000'000'000;
      break;
    case Fault::second_vm:
      // One that comes late: after its first channel was refused everything stands still, or the other VM's
      // TCP has to send again what was lost.
      if (s.second_late) {
        if (random.chance(0.5))
          s.stuck_after_refusal_ns = random.between(5, 40) * 1'000'000'000;
        else if (random.chance(0.6))
          s.bytes_lost_after_refusal_ns = random.between(1, 40) * 1'000'000'000;
        break;
      }
      // Two alike, at once, whose first bytes are lost now and then, and that are over before those come
      // again.
      if (!random.chance(0.6)) break;
      clear_links(s, random);
      if (s.source.channels > 2) s.source.channels = 1;
      shorten(s.source, random);
      s.second = s.source;
      s.apart_ns = 500'000;
      s.greeting_loss = 0.4;
      break;
    case Fault::strangers:
      // More of them than a session has room for speak at once, on two poll cores that have places for all.
      // A source without multifd has one connection, and finds room.
      if (s.source.channels == 0 || !random.chance(0.3)) break;
      clear_links(s, random);
      s.receiver.poll_cores = 2;
      s.source.channels = std::max(s.source.channels, 3U);
      s.crowd_ns = random.between(100'000, 600'000);
      break;
    case Fault::syn_flood:
      if (!random.chance(0.6)) break;
      s.receiver.poll_cores = 2;
      s.receiver.syn_table_entries = 8;
      s.astray = 0.3;
      break;
    case Fault::stuck_window: {
      const uint64_t within_ns[] = {1'000'000, 20'000'000, 300'000'000};
      s.stuck_within_ns = random.pick(within_ns);
      if (!random.chance(0.5)) break;
      shorten(s.source, random);
      s.source.return_path = random.chance(0.4);
      s.greeting_loss = 0.4;
      break;
    }
    case Fault::source_cancels:
      s.cancel_at_last_byte = random.chance(0.4);
      break;
    default:
      break;
  }
}

}  // namespace

Scenario scenario_of(uint64_t seed) {
  Random random(seed * 2 + 1);
  Scenario s;
  SourceOptions& source = s.source;
  source.age = static_cast<Age>(random.below(6));
  const uint32_t channels[] = {0, 1, 2, 2, 3, 4, 8};
  source.channels = random.pick(channels);
  source.pages = static_cast<uint32_t>(random.between(1, 120));
  source.small_pages = static_cast<uint32_t>(random.below(5));
  source.parts = static_cast<uint32_t>(random.below(7));
  source.pages_per_part = static_cast<uint32_t>(random.between(1, 2 * source.pages + 4));
  const uint32_t packets[] = {1, 2, 5, 16, 128};
  source.packet_pages = random.pick(packets);
  const double shares[] = {0, 0.1, 0.3, 0.9};
  source.zero = random.pick(shares);
  source.dirty = random.pick(shares);
  source.return_path = random.chance(0.7);
  source.zero_pages = ZeroPages::on_main;
  if (source.age >= Age::v9_0) source.zero_pages = static_cast<ZeroPages>(random.below(3));
  source.merge_sync = random.chance(0.7);
  source.send_twice = source.age == Age::v7_2 && random.chance(0.6);
  source.empty_rounds = random.chance(0.3);
  source.tail_bytes = random.below(20'000);
  if (source.channels > 0) {
    if (random.chance(0.15))
      source.method = test::MultifdMethod::zlib;
    else if (random.chance(0.15))
      source.method = test::MultifdMethod::zstd;
    else if (source.age >= Age::v9_1 && random.chance(0.1))
      source.method = test::MultifdMethod::qpl;
    source.compressible = random.chance(0.5);
  } else {
    source.xbzrle = random.chance(0.4);
    source.compress = source.age <= Age::v9_0 && !source.xbzrle && random.chance(0.5);
    source.compressible = source.compress;
    source.flush_without_multifd = source.age == Age::v8_2 && random.chance(0.3);
  }

  ReceiverOptions& receiver = s.receiver;
  receiver.poll_cores = random.chance(0.3) ? 2 : 1;
  receiver.workers = static_cast<uint32_t>(random.between(1, 3));
  receiver.two_nodes = random.chance(0.4);
  const uint32_t mtus[] = {576, 1500, 1500, 4096, 9000};
  receiver.mtu = random.pick(mtus);
  receiver.buffer_bytes = random.chance(0.7) || receiver.mtu < 2000 ? 2048 : 10'240;
  const uint32_t quotas[] = {0, 7, 15, 63, 255};
  receiver.quota = random.pick(quotas);
  const uint32_t windows[] = {4U << 20, 64 << 10, 16 << 10};
  receiver.window_bytes = random.pick(windows);
  receiver.port.checksum_offload = random.chance(0.5);
  const uint32_t descriptors[] = {32, 256, 1024};
  receiver.port.rx_descriptors = random.pick(descriptors);
  if (random.chance(0.2)) receiver.port.tx_fails = 0.02;

  const auto roughness = static_cast<uint32_t>(random.below(3));
  s.to_receiver = link_of(random, roughness, receiver.mtu);
  s.to_source = link_of(random, roughness, receiver.mtu);
  if (random.chance(0.5)) s.fault = static_cast<Fault>(random.below(kFaults));
  const uint32_t paces[] = {1000, 1000, 300, 30};
  s.poll_pace = random.pick(paces);
  s.worker_pace = random.pick(paces);
  s.control_pace = random.pick(paces) / 3;
  // A cookie holds only if the first segment to arrive behind it is the ACK, or the first with data: when
  // both are lost the connection is refused, by any receiver.
  if (s.fault == Fault::syn_flood) {
    s.to_receiver = link_of(random, 0, receiver.mtu);
    s.to_source = link_of(random, 0, receiver.mtu);
  }
  if (s.fault == Fault::mtu_changes) {
    // Time enough for the change to come in the midst of it.
    receiver.mtu = 9000;
    s.to_receiver.mtu = s.to_source.mtu = receiver.mtu;
    receiver.buffer_bytes = random.chance(0.5) ? 2048 : 10'240;
    source.pages += 60;
  }
  if (s.fault == Fault::outage) {
    receiver.peer_timeout_ns = TcpConfig{}.give_up_ns;
    s.outage_ns = random.between(1, 120) * 1'000'000'000;
    s.outage_moment = static_cast<Scenario::Moment>(random.below(4));
    source.return_path = random.chance(0.9);
  }
  if (s.fault == Fault::tiny_segments) source.pages = std::min(source.pages, 12U);
  const uint32_t jobs[] = {1, 1, 3, 16};
  receiver.lane_jobs = random.pick(jobs);
  if (s.fault == Fault::damaged_stream && source.channels > 0 && random.chance(0.5)) {
    s.damage_last_packet = true;
    if (random.chance(0.8)) {  // an age whose last packet means nothing, and may be read behind SHUT 0
      source.age = Age::v7_2;
      source.zero_pages = ZeroPages::on_main;
      if (source.method == test::MultifdMethod::qpl) source.method = test::MultifdMethod::none;
      source.merge_sync = source.return_path = true;
      source.channels = 1;
      s.to_receiver.reorder = 0.2;
      s.to_receiver.reorder_ns = 500'000;
      s.worker_pace = 30;
    }
  }
  // Last, so that the seeds without it stay as they were.
  if (s.fault == Fault::none && random.chance(0.15)) {
    s.fault = Fault::second_vm;
    s.second = source;
    s.second_late = random.chance(0.5);
    if (random.chance(0.5)) s.second.channels = random.pick(channels);
    s.second.age = static_cast<Age>(random.below(6));
    s.second.method = test::MultifdMethod::none;
    s.second.zero_pages = ZeroPages::on_main;
    s.second.send_twice = s.second.xbzrle = s.second.compress = s.second.flush_without_multifd = false;
    s.second.return_path = random.chance(0.7);
    // Nothing but zeros over main and a stray channel of the second VM: then the first is taken for a source
    // whose own channels were refused.
    if (source.channels == 0) s.second.channels = 0;
  }
  // IPv6 needs 1280 bytes, and an MTU that changes may fall below.
  s.ipv6 = receiver.mtu >= 1280 && s.fault != Fault::mtu_changes && random.chance(0.3);
  make_frequent(s, random);
  return s;
}

std::string describe(const Scenario& s) {
  char text[640];
  char outage[64] = "";
  constexpr const char* kMoments[] = {"any moment", "the switchover", "device state", "the verdict"};
  if (s.fault == Fault::outage)
    std::snprintf(outage, sizeof outage, " of %u s at %s", static_cast<uint32_t>(s.outage_ns / 1'000'000'000),
                  kMoments[static_cast<std::size_t>(s.outage_moment)]);
  constexpr const char* kMethods[] = {"none", "zlib", "zstd", "qpl", "uadk"};
  std::snprintf(text, sizeof text,
                "QEMU %s, %u channels, %s, %u pages, %u parts%s%s%s; %u poll cores, %u workers%s, MTU %u, "
                "buffers of %u, quota %u; loss %.3g/%.3g reorder %.3g duplicate %.3g corrupt %.3g clog %.3g; "
                "fault: %s%s%s%s%s",
                to_string(s.source.age), s.source.channels,
                kMethods[static_cast<std::size_t>(s.source.method)], s.source.pages, s.source.parts,
                s.source.return_path ? ", return path" : "", s.source.xbzrle ? ", xbzrle" : "",
                s.source.compress ? ", compress" : "", s.receiver.poll_cores, s.receiver.workers,
                s.receiver.two_nodes ? " on two nodes" : "", s.receiver.mtu, s.receiver.buffer_bytes,
                s.receiver.quota, s.to_receiver.loss, s.to_source.loss, s.to_receiver.reorder,
                s.to_receiver.duplicate, s.to_receiver.corrupt, s.to_receiver.clog, to_string(s.fault),
                outage, s.ipv6 ? "; IPv6" : "", s.greeting_loss > 0 ? "; greetings lost" : "",
                s.syn_lost_ns > 0                   ? "; SYNs lost"
                : s.bytes_lost_after_refusal_ns > 0 ? "; bytes lost"
                : s.crowd_ns > 0                    ? "; a crowd"
                                                    : "");
  return text;
}

}  // namespace migrx::sim

#include "loader/session/watchdogs.h"

namespace migrx {
namespace {

// A source that lost one of its channels has nothing more to say from that moment, and its TCP nothing to
// send. Another one, whose host had a stranger beside it, is never silent for so long in its first pass,
// unless it waits: for us, with bytes unread and windows closed, or for its own timers, with bytes lost. It
// is asked every few seconds, and told its windows with each question, five times until then.
constexpr uint64_t kRefusedNs = 20'000'000'000;

// A sender with bytes under way sends them again after so much time at the latest, however often they were
// lost (Linux: TCP_RTO_MAX; RFC 6298 section 2.5 has 60 s at least).
constexpr uint64_t kRepetitionNs = 120'000'000'000;

// A source with multifd sends nothing of RAM on main but the list of blocks (4096 of them at most, a few
// dozen bytes each) before its channels are connected; and it connects them within a round trip or a lost SYN
// or two.
constexpr uint64_t kMainAloneBytes = 256 * 1024;
constexpr uint64_t kMainAloneNs = 5'000'000'000;

double seconds(uint64_t ns) {
  return static_cast<double>(ns) * 1e-9;
}

}  // namespace

StreamError judge_arrival(const ArrivalFacts& facts, const SessionLimits& limits) {
  if (facts.here == 0 || facts.here >= facts.expected || facts.unheard) return {};
  if (facts.main_alone_bytes >= kMainAloneBytes && facts.waited_ns >= kMainAloneNs)
    return make_error(
        ErrorClass::mismatch, 0, "session: multifd channels",
        "the source sends pages on its main channel, so it does not use multifd: turn the capability "
        "multifd on there, or leave --multifd-channels out here");
  if (limits.channels_ns == 0 || facts.waited_ns <= limits.channels_ns) return {};
  return make_error_values(
      ErrorClass::mismatch, 0, "session: channels connected", facts.here, facts.expected,
      facts.main_alone_bytes > 0
          ? "only the main channel came: turn the capability multifd on at the source, or leave "
            "--multifd-channels out here; with it on, look for a firewall that lets one connection through"
          : "the other channels did not come: make --multifd-channels equal to the source's parameter");
}

EndVerdict judge_end(const EndFacts& facts) noexcept {
  // No channel is complete before the first barrier: a source cancelled while it connected.
  if (!facts.begun && facts.ends_parked) return EndVerdict::before_main;
  if (!facts.let_go) return EndVerdict::fine;
  // A source that is through closes its channels in good order (FIN), perhaps before main is through: that
  // shows at the barrier; with a return path it closes nothing before it has our verdict. A reset, or a peer
  // that no longer answers, is never good.
  const bool broken = facts.end == StreamEnd::reset || facts.end == StreamEnd::timed_out;
  const bool too_early = (broken || facts.return_path) && !facts.ram_complete;
  return !facts.begun || facts.awaited || too_early ? EndVerdict::too_early : EndVerdict::fine;
}

SilenceVerdict judge_silence(const SilenceFacts& facts, const SessionLimits& limits) noexcept {
  if (limits.destination_ns > 0 && facts.quiet_ns >= limits.destination_ns && facts.device_state &&
      !facts.colo)
    return SilenceVerdict::no_verdict;
  if (facts.one_too_many && !facts.device_state && !facts.colo && facts.quiet_ns >= kRefusedNs &&
      facts.idle_ns >= kRefusedNs)
    return SilenceVerdict::channel_refused;
  // Who is through has written all of main before (QEMU, migration_cleanup), and would have bytes under way.
  if (facts.channel_closed && !facts.device_state && !facts.colo && limits.stall_ns > 0 &&
      facts.quiet_ns >= limits.stall_ns && facts.idle_ns >= kRefusedNs)
    return SilenceVerdict::channel_closed;
  if (limits.stall_ns == 0 || facts.quiet_ns < limits.stall_ns) return SilenceVerdict::fine;
  const bool repeats = facts.under_way && facts.quiet_ns < limits.stall_ns + kRepetitionNs;
  if (facts.channels_wait)
    return facts.device_state || repeats ? SilenceVerdict::fine : SilenceVerdict::barrier;
  if (facts.colo) return SilenceVerdict::fine;
  if (facts.main_parked) return SilenceVerdict::destination_takes_none;
  return facts.before_ram && !repeats ? SilenceVerdict::setup : SilenceVerdict::fine;
}

StreamError error_of(SilenceVerdict verdict, const SessionLimits& limits, const std::string& standing) {
  switch (verdict) {
    case SilenceVerdict::fine:
      break;
    case SilenceVerdict::no_verdict:
      return make_error(
          ErrorClass::timed_out, 0, "session: destination",
          "%.0f s without a byte of device state, and the destination has not said that it has the guest "
          "(--destination-timeout): end that QEMU, it must not be continued",
          seconds(limits.destination_ns));
    case SilenceVerdict::barrier:
      return make_error(ErrorClass::timed_out, 0, "session: flush barrier",
                        "no byte came for %.0f s while channels wait for each other (%s): is the source "
                        "alive, and has --multifd-flush-after-each-section the source's value?",
                        seconds(limits.stall_ns), standing.c_str());
    case SilenceVerdict::setup:
      // QEMU 11's migrate_cancel() waits for the thread that reads the return path, with its guest standing
      // still: only our end of the connection can end that.
      return make_error(
          ErrorClass::timed_out, 0, "session: setup",
          "the source named its RAM and sent nothing for %.0f s (--stall-timeout): was it cancelled at that "
          "moment? Its guest goes on now",
          seconds(limits.stall_ns));
    case SilenceVerdict::channel_refused:
      return make_error(
          ErrorClass::mismatch, 0, "session: multifd channels",
          "a channel was refused as one too many, and the source has said nothing for %.0f s: the source "
          "opens more channels than --multifd-channels says: make both equal (parameter multifd-channels at "
          "the "
          "source)",
          seconds(kRefusedNs));
    case SilenceVerdict::channel_closed:
      return make_error(
          ErrorClass::truncated, 0, "session: multifd channels",
          "a channel was closed before the migration was through, and the source has said nothing for %.0f s "
          "(%s): what lies between the hosts and ends connections (a firewall, a proxy)? Migrate again",
          seconds(limits.stall_ns), standing.c_str());
    case SilenceVerdict::destination_takes_none:
      return make_error(ErrorClass::timed_out, 0, "session: destination",
                        "the destination took no byte for %.0f s although bytes wait for it: is the "
                        "destination QEMU alive, and waiting with -incoming? (--stall-timeout)",
                        seconds(limits.stall_ns));
  }
  return {};
}

}  // namespace migrx

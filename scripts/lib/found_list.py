"""The faults of migrx itself that were found once, each put back by a replacement as in mutant_list.py.

scripts/mutants --found asks after how many fresh seeds the simulation finds each again. `old` and `new` are texts, or
tuples of as many texts of the one file. A name begins with what found the fault: a seed of the simulation or the soak, or
the day. Faults that are older than a later design are put back where that design would have them; those that have no place
any more are named in docs/simulation.md. `tests` are those that see the fault whatever the simulation does. `kind` is a
text of the plans that can show it (simulate --plan): seeds with other plans count, but are passed over, which gives at most
more seeds than it would take, in a fraction of the time. "": all are run.
"""

from mutant_list import ADMISSION, CHANNEL, CONTROL, INPUT, Mutant, POLL, SESSION, STREAM_TESTS, TCP_TESTS

LISTENER = "dataplane/tcp/listener.cc"
TCP_CONFIG = "dataplane/tcp/config.h"
WATCHDOGS = "loader/session/watchdogs.cc"
LIMITS = "loader/session/session_limits.h"
STALL = "loader/session/stall_clock.h"

FOUND = (
    # ---- 2026-11-23, the first run of the simulation
    Mutant("2026-11-23: what another node has read is released only when more bytes come", CHANNEL,
           ("      parked_turns.add();\n      const std::span<const Slice> behind = connection_.readable();\n"
            "      if (!behind.empty() && behind.front().end != StreamEnd::none) [[unlikely]]\n"
            "        ends_parked_.store(true, std::memory_order_relaxed);\n      release_unneeded();\n",
            "    drain();\n  else\n    release_unneeded();"),
           ("      parked_turns.add();\n      const std::span<const Slice> behind = connection_.readable();\n"
            "      if (!behind.empty() && behind.front().end != StreamEnd::none) [[unlikely]]\n"
            "        ends_parked_.store(true, std::memory_order_relaxed);\n",
            "    drain();\n  else if (taken > 0 || work > 0)\n    release_unneeded();"), STREAM_TESTS),
    Mutant("2026-11-23: a source that did not wait for the verdict counts as complete", CONTROL,
           "if (!return_path_open_ && !colo_enabled)\n      destination_.source_ended();\n    else if (!colo_enabled &&",
           "if (!colo_enabled) destination_.source_ended();\n    if (!colo_enabled && !return_path_open_ &&", STREAM_TESTS),
    Mutant("2026-11-23: a channel that was reset is noticed at the barrier only", WATCHDOGS,
           "const bool too_early = (broken || facts.return_path) && !facts.ram_complete;", "const bool too_early = facts.return_path && !facts.ram_complete;", STREAM_TESTS,
           "channel ends"),
    Mutant("2026-11-23: another main channel ends the migration under way", ADMISSION,
           "if (told_apart || !came_before(who)) return answer(AdmissionVerdict::stranger);",
           "if (told_apart) return answer(AdmissionVerdict::stranger);", STREAM_TESTS, "second"),
    Mutant("workers standing still: who spoke and was not read yet is given up as silent, and then loaded", CONTROL,
           ("if (served.aborted && !lost && phase_ == Phase::running)",
            "silence_ns_max(served.channel->connection()) &&\n"
            "                        (served.channel->secured() || served.channel->connection().bytes_received.read() <\n"
            "                                                          served.channel->greeting_wanted());"),
           ("if (served.aborted && !lost && phase_ == Phase::over)",
            "silence_ns_max(served.channel->connection());"), STREAM_TESTS, "stuck window"),
    # ---- Seeds
    Mutant("seed 49902: main, silent while channels are missing, is given up", LIMITS,
           ": identify_ns + channels_ns;", ": identify_ns;", STREAM_TESTS, "SYNs lost"),
    Mutant("seed 49902: the channels have less time than Linux tries to connect", LIMITS,
           "channels_ns = 75'000'000'000", "channels_ns = 60'000'000'000", STREAM_TESTS, "SYNs lost"),
    Mutant("seed 62229: an honest segment that overtook its cookie's is reset", LISTENER,
           "if (now_ns < cookies_in_flight_until_ns_) return", "if (now_ns > UINT64_MAX - 1) return",
           TCP_TESTS, "syn flood"),
    Mutant("seed 90000016: in a flood an honest handshake's bare ACK on the wrong queue is reset", LISTENER,
           "if (now_ns < cookies_in_flight_until_ns_) return",
           "if (now_ns < cookies_in_flight_until_ns_ && segment.payload_length > 0) return",
           TCP_TESTS, "syn flood"),
    Mutant("reading along with seed 62229: a cookie's peer turns out an honest handshake", LISTENER,
           "  if (Entry* const entry = place(keyed_hash(segment.tuple, kDomainTable, 0))) {\n    *entry = cookie;",
           "  Entry* const set = &entries_[(keyed_hash(segment.tuple, kDomainTable, 0) % sets_) * kWays];\n"
           "  Entry* oldest = nullptr;\n"
           "  for (uint32_t i = 0; i < kWays; ++i)\n"
           "    if (!set[i].used || (!set[i].done && (oldest == nullptr || (oldest->used && set[i].since_ns < oldest->since_ns))))\n"
           "      oldest = &set[i];\n"
           "  if (oldest != nullptr && oldest->used) release(*oldest);\n"
           "  if (Entry* const entry = oldest) {\n    *entry = cookie;", TCP_TESTS, "syn flood"),
    Mutant("seed 156073: what comes after SHUT 0 changes the outcome", CONTROL,
           "if (!session_.settle()) break;", "if (session_.state() == SessionState::failed) break;", STREAM_TESTS,
           "damaged stream"),
    Mutant("seed 207198: small segments take what was promised", INPUT,
           "  return uint64_t{bytes_between(next, rcv_adv_)} * segment_buffers_ <=\n"
           "         uint64_t{quota_ - handoff_.held() - buffers} * segment_bytes_;",
           "  static_cast<void>(next);\n  static_cast<void>(buffers);\n  return true;", TCP_TESTS),
    Mutant("seed 3016822: a main channel closed in good order has 20 s", SESSION,
           "admission_.left(applicant(connection), end == StreamEnd::fin);",
           "admission_.left(applicant(connection), end == StreamEnd::fin &&\n"
           "      settings_.now_ns() - moments_.first_channel.load() < 20'000'000'000);", STREAM_TESTS, "stuck window"),
    Mutant("seed 10156669: main does not wait for peers that are silent", ADMISSION,
           "const bool all_spoke = !looks_ || heard_all_ || now_ns - gathered_at_ns_ > kPatienceNs;",
           "const bool all_spoke = true;", STREAM_TESTS, "second VM"),
    Mutant("seeds 720051469 and 850073298: a source that waits is taken for one whose channel was refused", WATCHDOGS,
           "facts.quiet_ns >= kRefusedNs &&\n      facts.idle_ns >= kRefusedNs)", "facts.quiet_ns >= kRefusedNs / 2)",
           STREAM_TESTS, "second VM"),
    Mutant("seed 820102504: who finds no room beside strangers is reset", CONTROL,
           "while (!takes_in || has_room()) {", "while (true) {", STREAM_TESTS, "strangers"),
    Mutant("workers standing still: a source that is held up is taken for one that hangs", CONTROL,
           "stall_clock_.held(holds_source_up(now_ns), now_ns);", "", STREAM_TESTS, "stuck window"),
    Mutant("workers standing still: channels that are not heard are missing", WATCHDOGS,
           "facts.here >= facts.expected || facts.unheard)", "facts.here >= facts.expected)", STREAM_TESTS, "stuck window"),
    # ---- Soak
    Mutant("soak 2103: a source that closed before SHUT 0 reached it counts as told", CONTROL,
           "const bool ended = end == StreamEnd::fin || end == StreamEnd::reset;",
           "const bool ended = end == StreamEnd::local;", STREAM_TESTS, "source cancels"),
    Mutant("soak 238: channels that close before main has begun are not noticed", WATCHDOGS,
           "return !facts.begun || facts.awaited ||", "return facts.awaited ||", STREAM_TESTS, "source cancels"),
    Mutant("soak 2357: channels that close after their first SYNC are not noticed", WATCHDOGS,
           "if (!facts.begun && facts.ends_parked) return EndVerdict::before_main;", "", STREAM_TESTS, "source cancels"),
    Mutant("soak 1066: half-open peers are not told when listening ends", POLL,
           "if (tenant_on(tenant.config().port) == nullptr && listener_.reset_one(tenant.config().port, out_)) {", "if (false) {",
           TCP_TESTS),
    Mutant("seed 1011001761: a channel of another address ends a source whose own comes late", CONTROL,
           "if (was_own(served, now_ns)) session_.fail_for_surplus();",
           "if (was_own(served, now_ns) || (held && has_said_more(*served.channel) &&\n"
           "                                    now_ns - served.refused_ns >= limits_.refused_ns))\n"
           "      session_.fail_for_surplus();", STREAM_TESTS, "hostile channel"),
    Mutant("seed 950494900: a source that closes a channel at a barrier and says nothing more is waited for", WATCHDOGS,
           "if (facts.channel_closed && !facts.device_state", "if (false && !facts.device_state", STREAM_TESTS,
           "channel ends"),
    # ---- Other ways
    Mutant("hostile neighbour: who connects and is silent has a place", LISTENER,
           "if (first_bytes_min(host) == 0) return true;", "if (first_bytes_min(host) < 99) return true;", TCP_TESTS,
           "strangers"),
    Mutant("review: a TLS handshake of anybody ends the session", SESSION,
           "misled_peer_.set(connection.peer_address);",
           "fail(make_error(ErrorClass::unsupported, 0, \"TLS\", \"not here\"));", STREAM_TESTS, "strangers"),
    Mutant("two VMs: a channel of the second one ends the migration under way", ADMISSION,
           "if (came_before(who)) return init.id.number()", "return init.id.number()", STREAM_TESTS, "second VM"),
    Mutant("outages: a silent peer is given up after 51 s", TCP_CONFIG,
           "give_up_ns = 960 * kNsPerSecond", "give_up_ns = 51 * kNsPerSecond", TCP_TESTS, "outage"),
    Mutant("outages: SHUT 0 is sent again after a minute", TCP_CONFIG,
           "rto_max_ns = 2500 * kNsPerMs", "rto_max_ns = 60 * kNsPerSecond", TCP_TESTS, "outage"),
    Mutant("outages: an outage counts as a stall", STALL,
           "out_of_reach(now_ns) || quiet_ns < grace_ns_ ? 0 : quiet_ns", "quiet_ns", STREAM_TESTS, "outage"),
    Mutant("outages: the source is told for 10 s", CONTROL,
           "  phase_ = Phase::telling;\n  deadline_ns_ = 0;",
           "  phase_ = Phase::telling;\n  deadline_ns_ = waited_ns_ + limits_.farewell_ns;", STREAM_TESTS, "outage"),
    Mutant("outages: what the port does not take counts as sent", POLL,
           "  bool room = link.ready_or_hopeless();\n  bool spoke = false;", "  bool room = true;\n  bool spoke = false;",
           TCP_TESTS),
)

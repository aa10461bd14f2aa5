"""Small faults for scripts/mutants: each one is a mistake that somebody could make.

A mutant is a text that occurs once in a file, and what replaces it. Those of KIND "tsan" are races that x86 hides: the
simulation runs in one thread and cannot see them, the threaded unit tests under TSan must.
"""

import collections

Mutant = collections.namedtuple("Mutant", "name file old new tests kind", defaults=("",))

BARRIER = "loader/stream/flush_barrier.h"
MAIN = "loader/main/main_channel.cc"
RAM = "loader/main/ram_section.cc"
JOBS = "loader/main/compress_jobs.cc"
MULTIFD = "loader/multifd/multifd_channel.cc"
REASSEMBLY = "dataplane/tcp/reassembly.cc"
INPUT = "dataplane/tcp/connection.cc"
OUTPUT = "dataplane/tcp/connection_output.cc"
HANDOFF = "dataplane/handoff/handoff.h"
CHANNEL = "loader/session/channel.cc"
CONTROL = "loader/session/session_control.cc"
SESSION = "loader/session/session.cc"
ROUTER = "loader/ram/node_router.cc"
RESET = "dataplane/reset_mode.cc"
POLL = "dataplane/poll_core.cc"

# The tests that are asked when no seed kills it.
STREAM_TESTS = ("loader_main", "loader/multifd", "loader-session")
TCP_TESTS = ("tcp", "dataplane")

MUTANTS = (
    # ---- Barrier and order of epochs
    Mutant("barrier lets channels pass one marker early", BARRIER,
           "released_.load(std::memory_order_acquire) > k;", "released_.load(std::memory_order_acquire) >= k;",
           STREAM_TESTS),
    Mutant("barrier counts a SYNC before it came", BARRIER,
           "load(std::memory_order_acquire) <= k) return false;", "load(std::memory_order_acquire) < k) return false;",
           STREAM_TESTS),
    Mutant("barrier forgets the last channel", BARRIER,
           "for (uint32_t i = 0; i < channels_; ++i)\n      if (arrived_",
           "for (uint32_t i = 0; i + 1 < channels_; ++i)\n      if (arrived_", STREAM_TESTS),
    Mutant("main does not wait for the channels", MAIN,
           "if (settings_.multifd_channels > 0 && !barrier_.all_arrived(epoch_)) {",
           "if (settings_.multifd_channels > 99 && !barrier_.all_arrived(epoch_)) {", STREAM_TESTS),
    Mutant("MULTIFD_FLUSH is no marker", MAIN,
           "after_marker_ = State::ram_body;\n  state_ = State::marker;", "after_marker_ = State::ram_body;",
           STREAM_TESTS),
    Mutant("EOS is no marker although the source syncs per section", MAIN,
           "multifd_channels == 0 || mode_ == FlushMode::section;", "multifd_channels == 0;", STREAM_TESTS),
    Mutant("EOS is always a marker", MAIN,
           "multifd_channels == 0 || mode_ == FlushMode::section;", "multifd_channels < 99;",
           STREAM_TESTS),
    Mutant("the mode of synchronising is not learned", MAIN,
           "if (mode_ == FlushMode::automatic) mode_ = FlushMode::round;", "", STREAM_TESTS),
    Mutant("main passes a marker with pages under way", MAIN,
           "  if (!ram_.settled(error)) return park(Wait::settle);\n  if (error) return fail(error);\n  ram_.fence();\n  if",
           "  ram_.fence();\n  if", STREAM_TESTS),
    Mutant("a channel arrives with copies under way", MULTIFD,
           "return routed_.collect() ? on_copies_done() : Step::parked;", "return on_copies_done();", STREAM_TESTS),
    Mutant("a channel goes on behind its SYNC without waiting", MULTIFD,
           "if (!session_.barrier->released(epoch_)) return Step::parked;", "", STREAM_TESTS),
    Mutant("nobody is let through behind the end of RAM", BARRIER,
           "    released_.store(UINT64_MAX, std::memory_order_seq_cst);\n", "", STREAM_TESTS),
    Mutant("pages behind the last SYNC are not noticed", BARRIER,
           "while (i < channels_ && !arrived_[i].has_pages.load(std::memory_order_seq_cst)) ++i;", "i = channels_;",
           STREAM_TESTS),
    Mutant("main waits without saying so", MAIN, "    barrier_.wait(epoch_);\n", "", STREAM_TESTS),
    Mutant("helpers are believed to be done", JOBS,
           "if (!worker->drained()) return false;", "if (worker == nullptr) return false;", STREAM_TESTS),
    Mutant("SYNC is told with a relaxed store", BARRIER,
           "arrived_[i].epochs.store(k + 1, std::memory_order_release)",
           "arrived_[i].epochs.store(k + 1, std::memory_order_relaxed)", ("loader/stream",), "tsan"),
    Mutant("the release is told with a relaxed store", BARRIER,
           "released_.store(k + 1, std::memory_order_release)", "released_.store(k + 1, std::memory_order_relaxed)",
           ("loader/stream",), "tsan"),

    # ---- Reassembly
    Mutant("overlap on the left is cut one byte short", REASSEMBLY,
           "    begin = left.end;\n    joins_left", "    begin = left.end - 1;\n    joins_left", TCP_TESTS),
    Mutant("overlap on the left loses a byte", REASSEMBLY,
           "    begin = left.end;\n    joins_left", "    begin = left.end + 1;\n    joins_left", TCP_TESTS),
    Mutant("a cut slice still begins at its first byte", REASSEMBLY,
           "  node.slice.data += bytes_between(seq, begin);\n", "", TCP_TESTS),
    Mutant("one new byte behind old ones counts as nothing new", REASSEMBLY,
           "if (left.end >= end) {", "if (left.end + 1 >= end) {", TCP_TESTS),
    Mutant("last wins", REASSEMBLY, "if (!equal || other.end >= end) {", "if (other.end >= end) {", TCP_TESTS),
    Mutant("a run that ends where the hole ends is not met", REASSEMBLY,
           "runs()[at].begin <= begin) {\n    const Run& left", "runs()[at].begin < begin) {\n    const Run& left",
           TCP_TESTS),
    Mutant("the search for a run is off by one", REASSEMBLY,
           "if (runs()[middle].end < seq) {", "if (runs()[middle].end < seq + 1) {", TCP_TESTS),
    Mutant("an evicted segment is still believed to be there", REASSEMBLY,
           "  run.end = nodes_[index].seq;\n", "", TCP_TESTS),
    Mutant("replaced segments' buffers are lost", REASSEMBLY,
           "    discarded_[discarded_count_++] = nodes_[node].slice.buffer;\n", "", TCP_TESTS),
    Mutant("delivery does not shorten the run", REASSEMBLY, "  run.begin += out.length;\n", "", TCP_TESTS),

    # ---- Window and input
    Mutant("the window shrinks", OUTPUT, "if (wanted - rcv_adv_ >= step) rcv_adv_ = wanted;",
           "if (step > 0) rcv_adv_ = wanted;", TCP_TESTS),
    Mutant("a closed window never reopens by itself", OUTPUT,
           "if (!receiving() || fin_seen_) return false;\n  const int32_t left",
           "if (receiving() || fin_seen_) return false;\n  const int32_t left", TCP_TESTS),
    Mutant("the window does not count what the worker holds", OUTPUT,
           "const uint32_t taken = held() + buffers_spare(quota_);", "const uint32_t taken = buffers_spare(quota_);", TCP_TESTS),
    Mutant("the window moves by single bytes", OUTPUT,
           "std::min(segment_bytes_, std::max(window_whole_ / 2, 1U))", "std::min(segment_bytes_, 1U)", TCP_TESTS),
    Mutant("the short way takes more than the quota", INPUT,
           "handoff_.held() + slices <= quota_ &&", "handoff_.held() + slices <= 2 * quota_ &&", TCP_TESTS),
    Mutant("small segments take the buffers of what was promised", INPUT,
           "config_.room_behind == nullptr || promise_kept(rcv_nxt_, 1)", "true", TCP_TESTS),
    Mutant("the short way breaks the promise", INPUT,
           "promise_kept(rcv_nxt_ + segment.payload_length, static_cast<uint32_t>(slices))", "true", TCP_TESTS),
    Mutant("what was put together waits although the loader has nothing else", OUTPUT,
           "handoff_.held() == 0 || promise_kept(rcv_nxt_, 1)", "promise_kept(rcv_nxt_, 1)", TCP_TESTS),
    Mutant("FIN overtakes what was put together", INPUT,
           "  if (!tail_.empty()) push_tail();\n  handoff_.push_end(StreamEnd::fin);",
           "  handoff_.push_end(StreamEnd::fin);", TCP_TESTS),
    Mutant("the rest of a segment stays where it is in its buffer", INPUT,
           "config_.room_behind(rest.buffer, slice.data + rest.length)",
           "config_.room_behind(rest.buffer, rest.data + rest.length)", TCP_TESTS),
    Mutant("reset mode goes before everybody was told", RESET,
           "return untold_ == 0 && now_ns - heard_ns_", "return now_ns - heard_ns_", TCP_TESTS),
    Mutant("a killed receiver's silent peers are not asked", POLL,
           "if (!probe) break;\n    send_probe(*probe, now_ns);", "if (!probe) break;", TCP_TESTS),
    Mutant("what a new link's peer says of its address is not heard", POLL,
           "if (resetting_) reset_mode_->on_arp(state.port.address, packet.sender_ip, packet.sender_mac);", "", TCP_TESTS),
    Mutant("in-order data is taken without a place", INPUT,
           "if (!joins_tail && free_buffers() == 0) return TcpCounter::over_quota;", "", TCP_TESTS),
    Mutant("data beyond a hole takes the last places", INPUT,
           "} else if (free_buffers() <= segment_buffers_) {", "} else if (free_buffers() == 0) {", TCP_TESTS),
    Mutant("data beyond the window is taken", INPUT, "SeqNum limit = rcv_adv_;", "SeqNum limit = end;", TCP_TESTS),
    Mutant("FIN ends the stream before its hole is filled", INPUT,
           "if (fin_seen_ && !stream_ended_ && rcv_nxt_ == fin_seq_) {", "if (fin_seen_ && !stream_ended_) {",
           TCP_TESTS),
    Mutant("an acknowledgment leaves before the worker is told", OUTPUT,
           "  publish();  // before any acknowledgment of it\n", "", TCP_TESTS),
    Mutant("the short way takes segments ahead of a hole", INPUT,
           "plain_ && segment.seq == rcv_nxt_ &&", "plain_ &&", TCP_TESTS),
    Mutant("a window probe is not answered", INPUT,
           "TcpCounter::keepalive_probe;\n      ack_now();", "TcpCounter::keepalive_probe;", TCP_TESTS),
    Mutant("checksums are believed", "dataplane/poll_core.cc",
           "if (frame.l4_checksum == ChecksumState::unknown) {", "if (frame.l4_checksum == ChecksumState::unknown) {\n"
           "    return true;", TCP_TESTS),
    Mutant("the first ACK drops all return-path bytes", INPUT,
           "send_queue_.acknowledge(bytes);", "send_queue_.acknowledge(send_queue_.size());", TCP_TESTS),

    # ---- Hand-off ring
    Mutant("the ring is read past its end", HANDOFF,
           "const uint32_t count = std::min(tail_seen_ - read_, mask_ + 1 - first);",
           "const uint32_t count = tail_seen_ - read_;", ("handoff",)),
    Mutant("buffers go home before they are read", HANDOFF,
           "detached() ? next_ : head_.load(std::memory_order_acquire);", "detached() ? next_ : tail_.load();",
           ("handoff",)),
    Mutant("slices are published with a relaxed store", HANDOFF,
           "tail_.store(next_, std::memory_order_release); }", "tail_.store(next_, std::memory_order_relaxed); }",
           ("handoff",), "tsan"),
    Mutant("slots are released with a relaxed store", HANDOFF,
           "slices,\n                std::memory_order_release);", "slices,\n                std::memory_order_relaxed);",
           ("handoff",), "tsan"),
    Mutant("a ring's producer publishes with a relaxed store", "dataplane/handoff/spsc_ring.h",
           "tail_.store(tail + 1, std::memory_order_release);", "tail_.store(tail + 1, std::memory_order_relaxed);",
           ("handoff",), "tsan"),

    # ---- Channels
    Mutant("slices that another node still reads are released", CHANNEL,
           "if (needed_from == ChannelParser::kNothingNeeded) [[likely]] {", "if (advanced > 0) {", STREAM_TESTS),
    Mutant("the place in a torn slice is forgotten", CHANNEL,
           "slice_used_ += static_cast<uint32_t>(used);", "slice_used_ = static_cast<uint32_t>(used);", STREAM_TESTS),
    Mutant("a channel that ends does not keep what another node reads", CHANNEL,
           "if (parser_ != nullptr && parser_->needed_from() != ChannelParser::kNothingNeeded) return 0;", "",
           STREAM_TESTS),
    Mutant("behind a barrier a parser waits for bytes", CHANNEL,
           "if (feed({}), state_ != State::streaming) {", "if (state_ != State::streaming) {", STREAM_TESTS),

    # ---- Pages
    Mutant("a joined line repeats the piece's first bytes", "loader/ram/kernels/line_writer.h",
           "    src += missing;\n", "", ("loader/ram",)),
    Mutant("a flushed line's later bytes are forgotten", "loader/ram/page_writer.h",
           "    if (piece.empty()) return;\n    flushed_ = 0;\n", "    if (piece.empty()) return;\n", ("loader/ram",)),
    Mutant("the rest of a line of another job is not stored", ROUTER,
           "    std::memcpy(dst, src, rest);\n", "", ("loader/ram",)),
    Mutant("a lane's copy is complete one job early", ROUTER,
           "completed_.store(served_, std::memory_order_release);",
           "completed_.store(served_ + 1, std::memory_order_release);", ("loader/ram",)),
    Mutant("XBZRLE: the second byte of a run counts double", "loader/ram/xbzrle.cc",
           "run = (low & 0x7f) | high << 7;", "run = (low & 0x7f) | high << 8;", ("loader/ram",)),
    Mutant("XBZRLE: a patch may pass the page's end by a byte", "loader/ram/xbzrle.cc",
           "if (run > kPageBytes - position) return XbzrleStatus::beyond_page;\n    if (run > static",
           "if (run > kPageBytes - position + 1) return XbzrleStatus::beyond_page;\n    if (run > static",
           ("loader/ram",)),
    Mutant("multifd: a zero page over old memory is skipped", MULTIFD,
           "if (target_.still_zero(page)) continue;",
           "if (!target_.bits->test(page)) continue;", STREAM_TESTS),
    Mutant("main: a zero page over old memory is skipped", RAM,
           "if (target.still_zero(page_offset_ / kPageBytes)) {",
           "if (!target.bits->test(page_offset_ / kPageBytes)) {", STREAM_TESTS),
    Mutant("multifd: written pages are not marked", MULTIFD,
           "for (uint32_t i = 0; i < runs_; ++i)\n    target_.bits", "for (uint32_t i = 1; i < runs_; ++i)\n    target_.bits",
           STREAM_TESTS),
    Mutant("main: the last pages of a run are not marked", RAM,
           "if (mark_count_ > 0) marks_->set_range(mark_first_, mark_count_);",
           "if (mark_count_ > 1) marks_->set_range(mark_first_, mark_count_ - 1);", STREAM_TESTS),
    Mutant("a page one beyond the block is placed", "loader/ram/ram_block.h",
           "offset < used_length_;", "offset <= used_length_;", STREAM_TESTS),
    Mutant("multifd: a run goes on over a gap", MULTIFD,
           "page_runs_[runs_ - 1].dst + page_runs_[runs_ - 1].bytes == dst", "page_runs_[runs_ - 1].dst < dst",
           STREAM_TESTS),

    # ---- Session
    Mutant("the source is told that all is well before it is", CONTROL,
           "  switch (destination_.verdict()) {\n    case Verdict::pending:\n      break;\n    case Verdict::refused:",
           "  switch (session_.state() == SessionState::device_state ? Verdict::accepted : destination_.verdict()) {\n"
           "    case Verdict::pending:\n      break;\n    case Verdict::refused:",
           STREAM_TESTS),
    Mutant("a second main channel takes the first one's place", SESSION,
           "if (!main_claimed_.exchange(true, std::memory_order_relaxed)) {",
           "if (!main_claimed_.exchange(true, std::memory_order_relaxed) || main_ != nullptr) {", STREAM_TESTS),
    Mutant("what comes from another address than the source's is not refused", SESSION,
           "    if (!belongs(connection)) return nullptr;\n", "", STREAM_TESTS),
    Mutant("what comes behind SHUT 0 changes the outcome", CONTROL,
           "if (!session_.settle()) break;", "if (session_.state() == SessionState::failed) break;", STREAM_TESTS),
    Mutant("a broken channel is not noticed", CONTROL,
           "if (!begun || awaited || (broken", "if ((broken && i > 99", STREAM_TESTS),
    Mutant("channels are looked up at the barrier as they connected", CONTROL,
           "const int32_t id = session_.multifd_channel(i).id();", "const int32_t id = static_cast<int32_t>(i);",
           STREAM_TESTS),
    Mutant("main is given up although channels are missing", CONTROL,
           "if (!may_wait) return limits_.identify_ns;", "if (may_wait || !may_wait) return limits_.identify_ns;", STREAM_TESTS),
    Mutant("a connection whose worker is late counts as silent", CONTROL,
           "connection().bytes_received.read() < ChannelDirectory::kMagicBytes;",
           "connection().bytes_received.read() < UINT64_MAX;", STREAM_TESTS),
    Mutant("a refused connection is not reset", CONTROL,
           "(silent || served.channel->refused())", "silent", STREAM_TESTS),
)

// A simulated QEMU source: a guest that keeps dirtying its memory, and the migration thread that sends it
// over the main channel and N multifd channels, with the barrier markers of its age. It also remembers what
// guest RAM must be behind each marker.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/loader/main_stream_builder.h"
#include "tests/loader/multifd_stream_builder.h"
#include "tests/sim/random.h"
#include "tests/sim/tcp_sender.h"

namespace migrx::sim {

// Sources that differ in where they put markers (QEMU migration/ram.c and multifd.c of these releases).
enum class Age : uint8_t {
  v7_2,  // each EOS is a marker; SYNC may carry data
  v8_0,  // the same; also later sources with multifd-flush-after-each-section=on
  v8_2,  // MULTIFD_FLUSH where the scan wraps; one more in END; SYNC may carry data
  v9_0,  // zero pages in packets, SYNC apart; one more FLUSH in END
  v9_1,  // one more SYNC in END, without its FLUSH
  v10_0  // neither
};
[[nodiscard]] const char* to_string(Age age);

enum class ZeroPages : uint8_t { on_main, in_packets, as_data };

struct SourceOptions {
  Age age = Age::v10_0;
  uint32_t channels = 2;  // 0: no multifd
  test::MultifdMethod method = test::MultifdMethod::none;
  ZeroPages zero_pages = ZeroPages::on_main;
  uint32_t pages = 64;  // of the large block
  uint32_t small_pages = 3;
  uint32_t parts = 4;  // PART sections before END
  uint32_t pages_per_part = 64;
  uint32_t packet_pages = 128;
  double zero = 0.3;
  double dirty = 0.3;  // of all pages, between sections
  bool compressible = false;
  bool return_path = true;
  bool xbzrle = false;
  bool compress = false;
  bool merge_sync = true;   // up to 8.2
  bool send_twice = false;  // 7.2: the last page of a packet again as the first of the next
  bool empty_rounds = false;
  bool flush_without_multifd = false;  // 8.1.0
  std::size_t tail_bytes = 600;
};

struct SourceBlock {
  std::string idstr;
  std::vector<std::byte> image;
  [[nodiscard]] uint64_t pages() const { return image.size() / 4096; }
};

// A page as an epoch leaves it.
struct SentPage {
  uint32_t block;
  uint32_t page;
  std::vector<std::byte> content;
  std::vector<std::byte> or_this;  // not empty: another copy was under way in the same epoch
};

class Source {
 public:
  enum class Outcome : uint8_t { running, completed, failed };

  Source(const SourceOptions& options, Random random);

  // connections: main first, then the channels. Not owned.
  void attach(std::vector<TcpSender*> connections, Random& random, uint64_t now_ns);
  // Connects, produces, reacts; returns work done.
  uint32_t step(uint64_t now_ns);
  // Earliest moment at which step() has something to do although nothing arrived; UINT64_MAX: none.
  [[nodiscard]] uint64_t next_ns() const;
  // The user cancels, or the process dies: the connections end. `orderly`: FIN, as the kernel does when
  // nothing is unread; else RST.
  void die(bool orderly);
  void vanish();

  [[nodiscard]] Outcome outcome() const { return outcome_; }
  [[nodiscard]] const SourceOptions& options() const { return options_; }
  [[nodiscard]] const std::vector<SourceBlock>& blocks() const { return blocks_; }
  [[nodiscard]] const std::vector<std::vector<SentPage>>& epochs() const { return epochs_; }
  // Bytes of the whole stream of connection i that have been given to TCP.
  [[nodiscard]] const std::vector<uint64_t>& written() const { return written_; }
  // Where packets, SYNCs and pieces of main end in it, in their order.
  [[nodiscard]] const std::vector<std::vector<uint64_t>>& ends() const { return ends_; }
  // Everything has been given to TCP.
  [[nodiscard]] bool all_written() const;
  // Steps of the plan that have not begun; the last ones are the switchover's.
  [[nodiscard]] std::size_t ops_left() const { return ops_.size(); }
  [[nodiscard]] uint64_t pages_sent() const { return pages_sent_; }
  [[nodiscard]] uint32_t pongs() const { return pongs_; }
  [[nodiscard]] const std::string& violation() const { return violation_; }

  // Faults: connection i writes only so many bytes and then ends as `how` says. How many each writes in all
  // is known at the end only: pages go to whichever channel has room.
  enum class Tear : uint8_t { none, fin, reset, silent };
  void tear(std::size_t i, uint64_t after_bytes, Tear how);
  [[nodiscard]] bool torn() const { return torn_; }
  // Connection i's bytes are damaged from this one on with this chance each.
  void damage(std::size_t i, uint64_t from_byte, double chance, Random random);
  [[nodiscard]] bool damaged() const { return damaged_; }

 private:
  struct Op {
    enum class Kind : uint8_t { main, packet, sync };
    Kind kind = Kind::main;
    std::vector<std::byte> bytes;  // main: of the stream; packet, sync: page contents
    std::string idstr;
    std::vector<uint64_t> normal;
    std::vector<uint64_t> zero;
  };

  // The whole migration is thought out at the beginning.
  void plan();
  void plan_part(uint32_t pages_max, bool last);
  void plan_page(uint32_t block, uint32_t page, bool last);
  void plan_sync();
  void plan_marker_epoch();
  void plan_empty_round();
  void flush_packet(Op::Kind kind);
  void flush_main();
  void dirty_some(double share);
  void new_content(std::byte* page);
  [[nodiscard]] std::span<std::byte> page_of(uint32_t block, uint32_t page) {
    return std::span{blocks_[block].image}.subspan(std::size_t{page} * 4096, 4096);
  }
  [[nodiscard]] bool round_mode() const { return options_.age >= Age::v8_2; }
  [[nodiscard]] bool multifd() const { return options_.channels > 0; }

  bool run_op();
  bool pump();
  bool push(std::size_t i);
  void read_return_path();
  void fail();

  const SourceOptions options_;
  Random random_;
  std::vector<SourceBlock> blocks_;
  std::vector<std::vector<std::byte>> last_sent_;  // images, for XBZRLE
  std::vector<std::vector<bool>> dirty_;
  std::vector<std::vector<bool>> sent_once_;
  std::vector<std::vector<SentPage>> epochs_;
  std::vector<SentPage> epoch_;
  std::vector<std::pair<uint32_t, uint32_t>>
      dirty_again_;  // written while they were sent; noticed between sections
  uint32_t cursor_block_ = 0;
  uint32_t cursor_page_ = 0;
  test::MainStreamBuilder main_;
  Op packet_;
  std::deque<Op> ops_;
  uint64_t pages_sent_ = 0;

  // Running.
  std::vector<TcpSender*> connections_;
  std::vector<uint64_t> connect_at_ns_;
  std::vector<std::vector<std::byte>> pending_;  // by connection: not yet taken by TCP
  std::vector<std::size_t> pending_at_;
  std::vector<uint64_t> written_;
  std::vector<std::vector<uint64_t>> ends_;
  std::vector<bool> greeted_;
  std::vector<std::unique_ptr<test::MultifdStreamBuilder>> channels_;
  std::size_t next_channel_ = 0;
  bool sync_under_way_ = false;
  uint64_t packet_num_ = 0;
  std::size_t return_path_at_ = 0;
  uint32_t pongs_ = 0;
  Outcome outcome_ = Outcome::running;
  std::string violation_;

  std::size_t torn_connection_ = 0;
  uint64_t torn_after_ = UINT64_MAX;
  Tear tear_ = Tear::none;
  bool torn_ = false;
  std::size_t damaged_connection_ = SIZE_MAX;
  uint64_t damaged_from_ = 0;
  double damage_chance_ = 0;
  Random damage_random_{0};
  bool damaged_ = false;
};

}  // namespace migrx::sim

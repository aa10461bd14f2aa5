#include "loader/destination/preempt_link.h"

namespace migrx {

uint32_t PreemptLink::do_work(uint64_t now_ns) {
  if (!begun() || !problem_.empty() || !further_.connect(to_, now_ns, problem_)) return 0;
  DestinationLink& link = further_.link();
  uint32_t work = link.do_work(now_ns);
  if (link.open()) {
    for (Bytes bytes = fifo_.readable(); !bytes.empty(); bytes = fifo_.readable()) {
      const std::size_t n = link.send(bytes);
      if (n == 0) break;
      fifo_.consume(n);
      sent_ += n;
      ++work;
    }
  }
  problem_ = further_.end_text("its connection of postcopy-preempt");
  return work;
}

void PreemptLink::close() {
  further_.close();
  begun_.store(false, std::memory_order_release);
}

void PreemptLink::forget() {
  for (Bytes left = fifo_.readable(); !left.empty(); left = fifo_.readable()) fifo_.consume(left.size());
  problem_.clear();
}

}  // namespace migrx

// Uses one thing of each module of the installed library.
#include <numeric>
#include <string>
#include <vector>

#include "lockstep/forward_context.hpp"
#include "lockstep/micro_batch.hpp"
#include "lockstep/microbatcher.hpp"

int main() {
  const lockstep::ForwardContext context = lockstep::create_forward_context({.num_tokens = 10});
  const lockstep::set_forward_context scope(context);

  lockstep::MicroBatchContext<std::vector<int>> micro_batches({.batch_size = 10, .micro_batch_size = 4});
  for (const lockstep::MicroBatchInfo& info : micro_batches.iterate()) {
    micro_batches.record_output(std::vector<int>(static_cast<std::size_t>(info.size), lockstep::get_forward_context().get_num_tokens()));
  }
  const std::vector<int> rows = micro_batches.gather_and_concat();  // 4 × 4, 4 × 4, 2 × 2

  lockstep::SyncMicrobatcher<std::string, std::size_t> lengths([](const std::vector<std::string>& items) {
    std::vector<std::size_t> result;
    for (const std::string& item : items) {
      result.push_back(item.size());
    }
    return result;
  });
  lengths.start();
  const std::size_t length = lengths.submit("lockstep");
  lengths.stop();
  return rows.size() == 10 && std::accumulate(rows.begin(), rows.end(), 0) == 36 && length == 8 ? 0 : 1;
}

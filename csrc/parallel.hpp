// A loop over independent tasks on a fixed number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace ncut {

// Calls task(i) for every i in [0, n_tasks). Tasks must not share what they write. An exception is
// rethrown here once all threads have stopped: the calling thread's, or else the first.
template <class Task>
void parallel_for(std::int64_t n_tasks, int n_threads, Task task) {
  if (n_threads <= 1 || n_tasks <= 1) {
    for (std::int64_t i = 0; i < n_tasks; ++i) task(i);
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  auto work = [&](bool own) {
    try {
      for (std::int64_t i = next++; i < n_tasks; i = next++) task(i);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(error_mutex);
      if (!error || own) error = std::current_exception();
      next = n_tasks;
    }
  };
  std::vector<std::thread> threads;
  try {
    for (int t = 1; t < n_threads && t < n_tasks; ++t) threads.emplace_back(work, false);
  } catch (const std::exception&) {  // the system has no more threads: fewer do the same
  }
  work(true);
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace ncut

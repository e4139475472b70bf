// A loop over independent tasks on a fixed number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace ncut {

// Calls task(i) for every i in [0, n_tasks). Tasks must not share what they write. The first
// exception thrown is rethrown here once all threads have stopped.
template <class Task>
void parallel_for(std::int64_t n_tasks, int n_threads, Task task) {
  if (n_threads <= 1 || n_tasks <= 1) {
    for (std::int64_t i = 0; i < n_tasks; ++i) task(i);
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  auto work = [&] {
    try {
      for (std::int64_t i = next++; i < n_tasks; i = next++) task(i);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(error_mutex);
      if (!error) error = std::current_exception();
      next = n_tasks;
    }
  };
  std::vector<std::thread> threads;
  try {
    for (int t = 1; t < n_threads && t < n_tasks; ++t) threads.emplace_back(work);
  } catch (const std::exception&) {  // the system has no more threads: fewer do the same
  }
  work();
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace ncut

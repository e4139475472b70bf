// Ctrl-C in kernels that may take long.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

namespace ncut::bindings {

// Runs Python's pending signal handlers every 50 ms, in the thread that made this, with the GIL
// released elsewhere; a handler's exception, such as KeyboardInterrupt, ends the kernel's other
// threads as well. A kernel's `Poll`, by std::ref.
class Signals {
 public:
  void operator()() {
    if (std::this_thread::get_id() != thread_) {
      if (stopped_) throw std::runtime_error("stopped");
      return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    next_ = now + std::chrono::milliseconds(50);
    const pybind11::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() == 0) return;
    stopped_ = true;
    throw pybind11::error_already_set();
  }

 private:
  std::thread::id thread_ = std::this_thread::get_id();
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now();
  std::atomic<bool> stopped_{false};
};

}  // namespace ncut::bindings

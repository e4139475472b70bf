// A way out of long loops.
#pragma once

#include <functional>

namespace ncut {

// Called now and then, in every thread of a kernel; ends the kernel by an exception. May be empty.
using Poll = std::function<void()>;

}  // namespace ncut

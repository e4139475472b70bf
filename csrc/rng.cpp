#include "rng.hpp"

#include "kernels.hpp"

namespace ncut {

void Philox::refill() {
  kernels().philox(key0_, key1_, stream_, substream_, counter_, buffer_.data());
  counter_ += kPhiloxCounters;
  used_ = 0;
}

}  // namespace ncut

// Goal    A thread gets the time slice that it asks for, where the kernel knows of slices, and nothing else of how it is scheduled changes.
// Method  The kernel is asked afterwards.
#include "lockstep/core/time_slice.hpp"

#include <cstdio>
#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <thread>

#include <gtest/gtest.h>

namespace lockstep {
namespace {

bool kernel_has_slices() {
  utsname name{};
  int major = 0;
  int minor = 0;
  EXPECT_EQ(uname(&name), 0);
  EXPECT_EQ(std::sscanf(name.release, "%d.%d", &major, &minor), 2) << name.release;
  return major > 6 || (major == 6 && minor >= 12);
}

TEST(TimeSlice, IsWhatWasAskedForWhereTheKernelHasSlices) {
  std::thread([] {
    const auto before = own_time_slice();
    ask_for_time_slice(kShortTimeSlice);
    EXPECT_EQ(own_time_slice(), kernel_has_slices() ? kShortTimeSlice : before);
  }).join();
}

TEST(TimeSlice, IsOfTheCallingThreadAndNothingElseOfItChanges) {
  const auto before = own_time_slice();
  const int policy = sched_getscheduler(0);
  const int priority = getpriority(PRIO_PROCESS, 0);
  std::thread([policy, priority] {
    ask_for_time_slice(kShortTimeSlice);
    EXPECT_EQ(sched_getscheduler(0), policy);
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), priority);
  }).join();
  EXPECT_EQ(own_time_slice(), before);
}

}  // namespace
}  // namespace lockstep

#include "daemon/lifecycle/signals/held_signals.hpp"

#include <csignal>
#include <pthread.h>

#include "daemon/lifecycle/signals/signal_policy.hpp"

namespace lockstep::daemon {
namespace {

void change_mask(int how) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : kPolicySignals) {
    sigaddset(&signals, signal);
  }
  pthread_sigmask(how, &signals, nullptr);  // fails only for another `how`
}

}  // namespace

HeldSignals::HeldSignals() {
  change_mask(SIG_BLOCK);
}

void HeldSignals::release() {
  change_mask(SIG_UNBLOCK);
}

}  // namespace lockstep::daemon

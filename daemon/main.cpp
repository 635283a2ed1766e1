#include "daemon/daemon.hpp"

int main(int argc, char** argv) {
  return lockstep::daemon::run_daemon(argc, argv, {});
}

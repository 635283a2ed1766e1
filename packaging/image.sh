#!/bin/sh
# The steps of the Containerfile, in one script so that a test can run them in a root that debootstrap made. Debian's package manager does the work.
set -eu

# Numeric and fixed: Kubernetes' runAsNonRoot asks for a number, and volumes belong to one.
readonly kUser=10001

usage() {
  cat <<'END'
Usage: image.sh build SOURCE OUTPUT   installs what building needs, builds, and puts the packages into OUTPUT
       image.sh runtime PACKAGE       installs lockstep's package and what it depends on, for a user that is not root; no service manager
END
}

build() {
  apt-get update
  apt-get install --yes --no-install-recommends ca-certificates git
  cd "$1"
  ./dev build release
  (cd build/release && cpack -B "$2")
}

runtime() {
  export DEBIAN_FRONTEND=noninteractive
  groupadd --gid "$kUser" lockstep
  useradd --uid "$kUser" --gid "$kUser" --home-dir /var/lib/lockstep --shell /bin/sh --no-create-home lockstep
  apt-get update
  # The tools of systemd alone, which make folders; curl is for preStop hooks and people, ssh for ranks in other pods.
  apt-get install --yes --no-install-recommends systemd-standalone-sysusers systemd-standalone-tmpfiles curl openssh-client openssh-server "$1"
  # Host keys come from a secret: those of an image would be everyone's.
  rm -f /etc/ssh/ssh_host_*
  apt-get clean
  rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log "$1"
}

case ${1:-} in
  build) build "$2" "$3" ;;
  runtime) runtime "$2" ;;
  *)
    usage >&2
    exit 64
    ;;
esac

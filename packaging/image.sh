#!/bin/sh
# The steps of the Containerfile, in one script so that a test can run them in a root that debootstrap made. Debian's package manager does the work.
set -eu

# Numeric and fixed: Kubernetes' runAsNonRoot asks for a number, and volumes belong to one.
readonly kUser=10001

usage() {
  cat <<'END'
Usage: image.sh build SOURCE OUTPUT cpu|cuda   installs what building needs, builds, and puts the packages that an image is made of into OUTPUT
       image.sh runtime FOLDER                 installs FOLDER's packages and what they depend on, for a user that is not root; no service manager
END
}

without_plugin() {
  echo "image.sh: no CUDA plugin $1: BUILD_IMAGE needs NVIDIA's CUDA toolkit 13.0 or newer in /usr/local/cuda" >&2
  exit 1
}

build() {
  case $3 in
    cpu) ;;
    # Looked for again where it is used; this saves the wait.
    cuda) PATH="$PATH:/usr/local/cuda/bin" nvcc --version >/dev/null 2>&1 || without_plugin "can be built" ;;
    *)
      echo "image.sh: DEVICE is '$3', expected cpu or cuda" >&2
      exit 64
      ;;
  esac
  apt-get update
  apt-get install --yes --no-install-recommends ca-certificates git
  cd "$1"
  ./dev build release lockstep_packaged
  components='daemon;system'
  if [ "$3" = cuda ]; then
    [ -e build/release/plugins/liblockstep_cuda.so ] || without_plugin "was built"
    components="$components;cuda"
  fi
  (cd build/release && cpack -B "$2" -D "CPACK_COMPONENTS_ALL=$components")
  rm -r "$2"/_CPack_Packages
}

runtime() {
  if ls "$1"/lockstep-cuda_* >/dev/null 2>&1 && ! ldconfig -p | grep -q 'libcudart\.so\.13'; then
    echo "image.sh: the loader finds no libcudart.so.13: RUNTIME_IMAGE needs the runtime library of NVIDIA's CUDA 13" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  groupadd --gid "$kUser" lockstep
  useradd --uid "$kUser" --gid "$kUser" --home-dir /var/lib/lockstep --shell /bin/sh --no-create-home lockstep
  apt-get update
  # The tools of systemd alone, which make folders; curl is for preStop hooks and people, ssh for ranks in other pods.
  apt-get install --yes --no-install-recommends systemd-standalone-sysusers systemd-standalone-tmpfiles curl openssh-client openssh-server "$1"/lockstep*.deb
  # Host keys come from a secret: those of an image would be everyone's.
  rm -f /etc/ssh/ssh_host_*
  apt-get clean
  rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log
}

case ${1:-} in
  build) build "$2" "$3" "$4" ;;
  runtime) runtime "$2" ;;
  *)
    usage >&2
    exit 64
    ;;
esac

#!/usr/bin/env bash
# Docker's engine, a base image and a registry for the end-to-end tests.
#
#   .ci/docker.sh up     installs and starts what is missing, prints variables to export
#   .ci/docker.sh down   stops what the `up` whose variables are set has started
#
# The base images (Debian with Python, from debootstrap) are made once and kept in
# $REPROMILL_CI_CACHE, by default the user's cache folder. An engine that answers
# already is used as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${REPROMILL_CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/repromill-ci}
port=${REPROMILL_CI_REGISTRY_PORT:-5017}
suite=bookworm
base=localhost:$port/base/debian-python:$suite
started=()
mkdir -p "$cache"

say() { echo "docker.sh: $*" >&2; }

skip() { # 75 is EX_TEMPFAIL: this machine cannot, which is no failure of the code
  say "SKIPPED: $*"
  exit 75
}

install_packages() {
  local missing=()
  command -v dockerd >/dev/null || missing+=(docker.io)
  command -v docker >/dev/null || missing+=(docker.io)
  command -v iptables >/dev/null || missing+=(iptables)
  [ -f "$cache/$suite.tar" ] || command -v debootstrap >/dev/null || missing+=(debootstrap)
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || skip "needs ${missing[*]}; install with: sudo apt-get install ${missing[*]}"
  command -v apt-get >/dev/null || skip "needs ${missing[*]} and there is no apt-get"
  say "installing ${missing[*]}"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"; } >"$cache/apt.log" 2>&1 ||
    skip "apt-get install ${missing[*]} failed; see $cache/apt.log"
}

start_engine() {
  docker version >/dev/null 2>&1 && return
  [ "$(id -u)" = 0 ] || skip "no Docker engine answers and only root can start one; run: sudo systemctl start docker"
  say "starting dockerd"
  setsid dockerd >"$cache/dockerd.log" 2>&1 </dev/null &
  echo $! >"$cache/dockerd.pid"
  started+=(dockerd)
  for _ in $(seq 60); do
    docker version >/dev/null 2>&1 && return
    kill -0 "$(cat "$cache/dockerd.pid")" 2>/dev/null || break
    sleep 0.5
  done
  tail -5 "$cache/dockerd.log" >&2
  rm -f "$cache/dockerd.pid"
  skip "dockerd does not start here; see $cache/dockerd.log"
}

make_base() {
  docker image inspect "$base" >/dev/null 2>&1 && return
  if [ ! -f "$cache/$suite.tar" ]; then
    [ "$(id -u)" = 0 ] || skip "making the base image needs root, once"
    say "making $suite with debootstrap"
    local root=$cache/$suite.root
    rm -rf "$root"
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates "$suite" "$root" >"$cache/debootstrap.log" 2>&1 ||
      skip "debootstrap failed; see $cache/debootstrap.log"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    ln -sf python3 "$root/usr/bin/python"
    tar -C "$root" --numeric-owner -cf "$cache/$suite.tar.tmp" .
    mv "$cache/$suite.tar.tmp" "$cache/$suite.tar"
    rm -rf "$root"
  fi
  docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' -c 'CMD ["bash"]' "$cache/$suite.tar" "$base" >/dev/null
}

# An engine that answers may still be unable to run a container, or to let one
# reach the package indexes, which the tests need.
probe() {
  docker run --rm --network none "$base" true >"$cache/probe.log" 2>&1 || skip "containers do not run here; see $cache/probe.log"
  docker run --rm "$base" python3 -c '
import ssl, urllib.request
anyone = ssl._create_unverified_context() # reached at all; a site may have a CA bundle of its own
for u in "https://pypi.org/simple/numpy/", "http://deb.debian.org/debian/dists/bookworm/InRelease":
    urllib.request.urlopen(u, timeout=30, context=anyone).read(100)' >"$cache/probe.log" 2>&1 || skip "containers do not reach the package indexes; see $cache/probe.log"
}

start_registry() {
  if ! curl -fs "http://localhost:$port/v2/" >/dev/null 2>&1; then
    mkdir -p "$cache/registry"
    go build -o "$cache/registry.bin" ./.ci/registry
    setsid "$cache/registry.bin" "127.0.0.1:$port" "$cache/registry" >"$cache/registry.log" 2>&1 </dev/null &
    echo $! >"$cache/registry.pid"
    started+=(registry)
    for _ in $(seq 50); do
      curl -fs "http://localhost:$port/v2/" >/dev/null 2>&1 && break
      sleep 0.1
    done
  fi
  docker push -q "$base" >/dev/null
}

stop() { # PIDFILE NAME: only a process that is still the one that was started
  local file=$cache/$1.pid pid
  [ -f "$file" ] || return 0
  pid=$(cat "$file")
  rm -f "$file"
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || return 0
  say "stopping $2"
  kill "$pid"
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.2
  done
}

case ${1:-} in
up)
  install_packages
  start_engine
  make_base
  probe
  start_registry
  echo "export REPROMILL_TEST_DOCKER_BASE=$base"
  echo "export REPROMILL_TEST_REGISTRY=localhost:$port"
  echo "export REPROMILL_CI_STARTED='${started[*]-}'"
  ;;
down)
  case " ${REPROMILL_CI_STARTED-} " in *" registry "*) stop registry registry.bin ;; esac
  case " ${REPROMILL_CI_STARTED-} " in *" dockerd "*) stop dockerd dockerd ;; esac
  ;;
*)
  echo "usage: $0 up|down" >&2
  exit 2
  ;;
esac

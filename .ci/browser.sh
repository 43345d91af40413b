#!/usr/bin/env bash
# Chromium for the browser test: installs Debian's package where it is missing.
set -euo pipefail

skip() { # 75 is EX_TEMPFAIL: this machine cannot, which is no failure of the code
  echo "browser.sh: SKIPPED: $*" >&2
  exit 75
}

for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null && exit 0
done
[ "$(id -u)" = 0 ] || skip "needs Chromium; install it with: sudo apt-get install chromium"
command -v apt-get >/dev/null || skip "needs Chromium and there is no apt-get"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "browser.sh: installing chromium" >&2
{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends chromium fonts-dejavu-core; } >"$log" 2>&1 ||
  { tail -5 "$log" >&2; skip "apt-get install chromium failed"; }

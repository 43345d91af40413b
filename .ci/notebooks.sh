#!/usr/bin/env bash
# Runs every notebook of examples/notebooks on the data beside them, or on the data
# in $1, and fails on any error in a cell; executed notebooks and pictures go to
# $REPROMILL_NOTEBOOK_OUT. Python's packages are put into a folder of their own, kept
# for the next time; 75 where that cannot be done.
set -euo pipefail
data=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
data=${data:-$PWD/examples/notebooks/data}

skip() { # 75 is EX_TEMPFAIL: this machine cannot, which is no failure of the code
  echo "notebooks.sh: SKIPPED: $*" >&2
  exit 75
}

command -v python3 >/dev/null || skip 'needs python3'
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || skip 'needs Python 3.10 or later'
packages=examples/notebooks/requirements.txt
venv=${REPROMILL_NOTEBOOK_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/repromill-ci/notebooks-$({ cat "$packages"; python3 -V; } | sha256sum | cut -c1-12)}
if [ ! -e "$venv/.complete" ]; then
  echo "notebooks.sh: installing into $venv" >&2
  rm -rf "$venv"
  log=$(mktemp)
  { python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check -r "$packages"; } >"$log" 2>&1 ||
    { tail -3 "$log" >&2; rm -rf "$log" "$venv"; skip 'the Python packages cannot be installed'; }
  rm -f "$log"
  touch "$venv/.complete"
fi
export PATH=$venv/bin:$PATH

size=$(($(find "$data" -type f -exec cat {} + | wc -c) / 1000))
if [ -z "${1:-}" ] && [ "$size" -gt 500 ]; then
  echo "notebooks.sh: the data takes $size kB, more than 500" >&2
  exit 1
fi
(cd examples/notebooks && python3 build.py --check && python3 check.py "$data" ${REPROMILL_NOTEBOOK_OUT:+"$REPROMILL_NOTEBOOK_OUT"})

# The same views for people without Python.
n=$(REPROMILL_RESULTS=$data "${REPROMILL:-bin/repromill}" results sql --csv 'SELECT count(*) > 0 FROM runs' | tail -1)
[ "$n" = true ] || { echo 'notebooks.sh: results sql finds no runs' >&2; exit 1; }

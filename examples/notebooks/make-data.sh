#!/usr/bin/env bash
# Makes examples/notebooks/data anew with the real commands of repromill: a paper,
# FP8 against NVFP4, a load sweep of both, and eight nights of which the last ones
# are worse. Model servers are simulated, and the rows say so. Takes about twelve
# minutes, most of it for the nights; REPROMILL names a binary that is built already. Usage: make-data.sh [FOLDER]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/data}
nights=${NIGHTS:-8}
cd "$here/../.."

work=$(mktemp -d)
servers=()
finish() {
  if [ "${#servers[@]}" -gt 0 ]; then kill "${servers[@]}" 2>/dev/null || true; fi
  wait
  rm -rf "$work"
}
trap finish EXIT
if [ -n "${REPROMILL:-}" ]; then cp "$REPROMILL" "$work/repromill"; else go build -o "$work/repromill" ./cmd/repromill; fi
go build -o "$work/arms" ./examples/notebooks/arms
PATH=$work:$PATH
# Only now: Go keeps its build cache below XDG_CACHE_HOME.
export XDG_STATE_HOME=$work/state XDG_DATA_HOME=$work/share XDG_CACHE_HOME=$work/cache XDG_CONFIG_HOME=$work/config
export REPROMILL_RESULTS=$work/results REPROMILL_EXECUTOR=local NO_COLOR=1

# arms starts both models: arms NAME [FLAG…]. Their addresses are in $work/NAME.
arms() {
  mkdir -p "$work/$1"
  arms_dir=$work/$1
  shift
  "$work/arms" -dir "$arms_dir" "$@" &
  servers+=($!)
  until [ -s "$arms_dir/fp8.url" ] && [ -s "$arms_dir/nvfp4.url" ]; do sleep 0.1; done
}
# load_server starts a simulated server for load: load_server MODEL STEP.
load_server() {
  repromill load server --port 0 --model "$1" --step "$2" --per-sequence 200us --address-file "$work/$(basename "$1").load" >/dev/null &
  servers+=($!)
  until [ -s "$work/$(basename "$1").load" ]; do sleep 0.1; done
}

echo '== a paper' >&2
repromill run --mirror examples/mirror 2604.08075 --yes --quiet >/dev/null

echo '== FP8 against NVFP4' >&2
arms good
mirror=$work/good/mirror
repromill run example/tiny-NVFP4 --baseline example/tiny-FP8 --suites synthetic-choice --questions 1500 --margin 5pt --yes --quiet --mirror "$mirror" \
  --endpoint "nvfp4=$(cat "$work/good/nvfp4.url")" --endpoint "fp8=$(cat "$work/good/fp8.url")" >/dev/null

echo '== a load sweep' >&2
load_server example/tiny-FP8 16ms
load_server example/tiny-NVFP4 10ms
for model in tiny-FP8 tiny-NVFP4; do
  repromill load --url "$(cat "$work/$model.load")" --concurrency 1,2,4,8,16 --isl 32 --osl 24 --requests 32 --warmup 2 --no-self-check --quiet >/dev/null
done
echo "== $nights nights" >&2
arms bad -nvfp4 0.62
for ((night = 1; night <= nights; night++)); do
  url=$(cat "$work/good/nvfp4.url")
  if ((night > nights - 3)); then url=$(cat "$work/bad/nvfp4.url"); fi
  sed "s#ENDPOINT#$url#" "$here/nightly.yaml" >"$work/nightly.yaml"
  runs=$(ls "$REPROMILL_RESULTS/_runs" | wc -l)
  until [ "$(ls "$REPROMILL_RESULTS/_runs" | wc -l)" -gt "$runs" ]; do # a slot is a minute
    repromill nightly run "$work/nightly.yaml" --once --quiet --mirror "$mirror" 2>"$work/night.log" || { cat "$work/night.log" >&2; exit 1; }
    sleep 2
  done
done
repromill nightly report "$work/nightly.yaml" >"$work/nightly.txt" || true

echo '== merge and check' >&2
repromill results compact
repromill results verify
# Logs are not what notebooks read; without them the data is small.
rm -rf "$out"
mkdir -p "$out"
for table in "$REPROMILL_RESULTS"/*/; do
  case $(basename "$table") in _*) ;; *) cp -R "$table" "$out/" ;; esac
done
du -sh "$out" >&2
cat "$work/nightly.txt" >&2

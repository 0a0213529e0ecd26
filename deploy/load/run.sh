#!/usr/bin/env bash
# Runs every load script against a Luminate of its own, on a free port and an empty
# folder, or against LUMINATE_URL where that is set. Usage: run.sh K6 LUMINATE [script...]
# BACKEND=clickhouse starts a ClickHouse too (luminate-bench beside LUMINATE knows how) and
# asks for its floors. DURATION, VUS, WRITE_VUS, QUERY_VUS, BATCH, FLOOR_METRICS and FLOOR_MIXED
# (metrics/s), FLOOR_WRITE_P95, FLOOR_QUERY_P95 and FLOOR_WIDE_P95 (ms) go to the scripts.
set -euo pipefail
k6=$1 luminate=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
scripts=("$@")
[ ${#scripts[@]} -gt 0 ] || scripts=(native-write native-query promql mixed)

if [ -z "${LUMINATE_URL:-}" ]; then
  dir=$(mktemp -d)
  log=$dir/server.log
  pids=()
  stop() {
    for p in "${pids[@]}"; do kill "$p" 2>/dev/null && wait "$p" 2>/dev/null || true; done
    rm -rf "$dir"
  }
  trap stop EXIT
  storage=(--storage.badger.dir "$dir/data")
  if [ "${BACKEND:-badger}" = clickhouse ]; then
    "$(dirname "$luminate")/luminate-bench" clickhouse --dir "$dir/engine" >"$dir/dsn" 2>"$dir/engine.log" &
    pids=($!)
    for _ in $(seq 1200); do # the first time it is fetched and built
      [ -s "$dir/dsn" ] && break
      kill -0 "${pids[0]}" 2>/dev/null || { cat "$dir/engine.log"; exit 1; }
      sleep 0.1
    done
    storage=(--storage.backend clickhouse --storage.clickhouse.dsn "$(cat "$dir/dsn")")
    # Blocks are what ClickHouse takes well, and an answer waits for its block: more
    # writers with larger requests than on Badger. One reader: the engine takes a core and
    # more for a query, so with four the figure would be the queue of this machine. Beside
    # readers and the engine the writers get what two cores have left.
    export FLOOR_METRICS=${FLOOR_METRICS:-100000} BATCH=${BATCH:-2000} WRITE_VUS=${WRITE_VUS:-16} QUERY_VUS=${QUERY_VUS:-1}
    export FLOOR_MIXED=${FLOOR_MIXED:-20000} FLOOR_WIDE_P95=${FLOOR_WIDE_P95:-1000}
  fi
  # Port 0: the system picks a free one, and the log tells which.
  "$luminate" serve --server.listen 127.0.0.1:0 "${storage[@]}" --log.format json 2>"$log" &
  server=$!
  pids=("$server" ${pids[@]+"${pids[@]}"})
  addr=
  for _ in $(seq 200); do
    addr=$(sed -n 's/.*"luminate starts".*"listen":"\([^"]*\)".*/\1/p' "$log" | head -1)
    if [ -n "$addr" ] && curl -fs "http://$addr/readyz" >/dev/null; then break; fi
    kill -0 "$server" 2>/dev/null || { cat "$log"; exit 1; }
    sleep 0.1
  done
  curl -fs "http://$addr/readyz" >/dev/null || { echo "luminate was not ready within 20 s"; cat "$log"; exit 1; }
  export LUMINATE_URL=http://$addr
fi

failed=0
for s in "${scripts[@]}"; do
  "$k6" run --quiet --no-usage-report "$here/$s.js" || failed=1
done
[ $failed = 0 ] && echo "PASS: every floor" || echo "FAIL: see above"
exit $failed

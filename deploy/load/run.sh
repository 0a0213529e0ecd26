#!/usr/bin/env bash
# Runs every load script against a Luminate of its own, on a free port and an empty
# folder, or against LUMINATE_URL where that is set. Usage: run.sh K6 LUMINATE [script...]
# DURATION, VUS, BATCH, FLOOR_METRICS, FLOOR_WRITE_P95 and FLOOR_QUERY_P95 (ms) go to the scripts.
set -euo pipefail
k6=$1 luminate=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
scripts=("$@")
[ ${#scripts[@]} -gt 0 ] || scripts=(native-write native-query promql mixed)

if [ -z "${LUMINATE_URL:-}" ]; then
  dir=$(mktemp -d)
  log=$dir/server.log
  # Port 0: the system picks a free one, and the log tells which.
  "$luminate" serve --server.listen 127.0.0.1:0 --storage.badger.dir "$dir/data" --log.format json 2>"$log" &
  server=$!
  trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
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

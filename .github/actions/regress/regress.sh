#!/usr/bin/env bash
# The gate of `sailctl regress` in any CI: exit code 0 not worse, 1 worse, 2 could not judge.
#   regress.sh [BASELINE ...]         default: results/baselines
# SAILCTL  the command, where it is not on the path (default: sailctl)
# OUT      folder that keeps the report and the runs (default: none is kept)
set -uo pipefail

out=${OUT:-}
report=$(mktemp)
trap 'rm -f "$report"' EXIT

"${SAILCTL:-sailctl}" regress ${out:+--out "$out/runs"} "$@" 2>&1 | tee "$report"
code=${PIPESTATUS[0]}

if [ -n "$out" ]; then
    mkdir -p "$out"
    cp "$report" "$out/report.txt"
fi
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
    { echo '```'; cat "$report"; echo '```'; } >> "$GITHUB_STEP_SUMMARY"
fi
if [ -n "${GITHUB_OUTPUT:-}" ]; then
    echo "code=$code" >> "$GITHUB_OUTPUT"
fi
exit "$code"

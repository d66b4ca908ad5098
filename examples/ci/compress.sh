#!/usr/bin/env bash
# Compress a model in CI: compress.sh MODEL BUDGET OUT.onnx
#
# Exit codes are peel's own, and a failed step stops the job:
#   0  OUT.onnx is there, within the budget, and every check held. A model that meets the budget already is exported as
#      it is, so that this step can stay in place.
#   1  a check did not hold: the budget is out of reach, or the slim model is not right. Nothing was written.
#   2  the input can't be used: no such file, a wrong flag, a model that can't be traced. Nothing was written.
set -euo pipefail

model=$1 budget=$2 out=$3

status=0
peel prune "$model" --flops "$budget" --out "$out" --output-format json > peel-report.json || status=$?
if [ "$status" -ne 0 ]; then
  echo "compress: no $out (exit code $status, see the lines above)" >&2
  exit "$status"
fi

# One line for the job's log, and for its summary page on GitHub.
line=$(python - peel-report.json <<'PYTHON'
import json, sys

report = json.load(open(sys.argv[1]))
before, after = report["before"]["macs"], report["after"]["macs"]
checks = [check for check in report["checks"] if check["ok"]]
print(f"{before / 1e6:,.1f} M -> {after / 1e6:,.1f} M multiply-adds, {len(checks)} checks held")
PYTHON
)
echo "compress: $out, $line"
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
  echo "**$out**: $line" >> "$GITHUB_STEP_SUMMARY"
fi

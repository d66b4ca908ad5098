#!/usr/bin/env bash
# From a trained model to a slim, proven ONNX file, as a user would do it. Leaves demo/model.pt and demo/slim.onnx.
# Needs `peel` and `python` with the [dev] packages on PATH: `make demo` sees to that.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

run() {
  printf '\n$ %s\n' "$*"
  "$@"
}

mkdir -p demo
cd demo
rm -f slim.onnx

echo "model.pt: EfficientNet-Lite0, trained on ImageNet"
python "$here/demo_model.py" model.pt

# A group is a set of channels that must be kept or removed together. All of them would fill the screen.
printf '\n$ %s\n' "peel inspect model.pt"
peel inspect model.pt > groups.txt
head -n 14 groups.txt
echo "... (all groups are in demo/groups.txt)"

run peel prune model.pt --flops 50% --out slim.onnx

run python "$here/demo_infer.py" slim.onnx

printf '\nleft in %s:\n' "$PWD"
ls -l model.pt slim.onnx

#!/usr/bin/env bash
# What a GPU is asked, in under four minutes: bash benchmarks/gpu/run.sh OUT
# The tests of the kernels; then time by the wall and on the device, memory and errors of AVOpT at five shapes;
# then every competitor at one shape. Each table stands in OUT as text and as JSON.
set -uo pipefail # not -e: what fails is told, and the rest is still measured
cd "$(dirname "$0")/../.."
out="${1:?give a folder for the results}"
mkdir -p "$out"
failed=0

measure() { # NAME WORDS...: a table by its name
    echo "=== $1"
    local name="$1"
    shift
    avalign bench-loss --device cuda --json "$out/$name.json" "$@" | tee "$out/$name.txt" || failed=1
}

python -m pytest -q tests/gpu | tee "$out/tests.txt" || failed=1
shapes=(--shape 64x196x64x512 --shape 1024x64x13x128 --shape 256x196x64x768 --shape 16x196x512x768 --shape 4x1024x1024x512)
measure iterations-50-bfloat16 "${shapes[@]}" --backend sinkhorn --dtype bfloat16 --iterations 50 --repeats 20
measure tolerance-bfloat16 "${shapes[@]}" --backend sinkhorn --dtype bfloat16 --tolerance 1e-3 --repeats 20
measure iterations-50-float32 --shape 64x196x64x512 --backend sinkhorn --backend sinkhorn-torch --iterations 50 --repeats 20
measure everyone --shape 64x196x64x512 --backend all --time-limit 20 --repeats 5
exit "$failed"

#!/usr/bin/env bash
# Everything that needs a GPU, in two goes that should take less than ten minutes each on an H200 (reckoned from parts of
# them): what the library does there, and the tables of the paper.
#
#     bash benchmarks/gpu.sh [PYTHON]                           # the CUDA tests, the speed table, where a step's time goes
#     bash benchmarks/gpu.sh PYTHON CIFAR10 SVHN [ABOUT_SVHN]   # the paper's tables
#
# PYTHON has skgcm with the extras "bench" and "dev"; the others are what benchmarks/paper.py takes. Writes
# benchmarks/results/*-cuda.* and docs/speed-cuda.png, or benchmarks/results/paper-*.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
python=${1:-python}

if [ $# -eq 2 ]; then
    echo "For the paper's tables name both sets: bash benchmarks/gpu.sh PYTHON CIFAR10 SVHN [ABOUT_SVHN]" >&2
    exit 2
fi
if [ "$("$python" -c 'import torch; print(torch.cuda.is_available())')" = False ]; then
    echo "No GPU here that PyTorch can use: nothing measured, nothing written."
    exit 0
fi
failed=0  # what fails must not keep the rest from being measured
if [ $# -ge 3 ]; then
    # kept: run again, what was cut off goes on (of SVHN only what was fitted to its end)
    options=(--long --smooth --batch-size 512 --lr 0.4 --jobs 3 --keep "$here/../.fits")
    "$python" "$here/paper.py" --cifar10 "$2" --only accuracy decline --epochs 100 "${options[@]}" || failed=$?
    "$python" "$here/paper.py" --svhn "$3" --about-svhn "${4:-}" --only svhn --epochs 60 --seeds 0 "${options[@]}" || failed=$?
    exit $failed
fi
"$python" -m pytest "$here/../tests/test_cuda.py" || failed=$?
"$python" "$here/speed.py" || failed=$?
"$python" "$here/profile_fit.py" || failed=$?
exit $failed

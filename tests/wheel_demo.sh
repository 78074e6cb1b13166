#!/usr/bin/env bash
# What a user gets: builds the wheel, installs it into a bare environment, and runs the demo there,
# in an empty folder outside of the clone.
set -euo pipefail
clone=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"${PYTHON:-python3}" -m venv "$folder/venv"
pip="$folder/venv/bin/pip"
"$pip" install --quiet --constraint "$clone/constraints.txt" --upgrade pip
"$pip" wheel --quiet --no-deps --build-constraint "$clone/constraints.txt" --wheel-dir "$folder" "$clone"
wheel=$(echo "$folder"/axonal-*.whl)
"$pip" install --quiet --constraint "$clone/constraints.txt" "$wheel[torch]"

mkdir "$folder/empty"
cd "$folder/empty"
unset PYTHONPATH AXONAL_DATA
export AXONAL_CACHE="$folder/cache"
"$folder/venv/bin/python" -c "
import importlib.util, pathlib, axonal
assert pathlib.Path(axonal.__file__).is_relative_to('$folder'), axonal.__file__
assert importlib.util.find_spec('benchmarks') is None
"
"$folder/venv/bin/axonal" demo
test -s demo/report.html
test -s demo/spiking.png
echo "The wheel runs the demo."

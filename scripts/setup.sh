#!/usr/bin/env bash
# Make the virtual environment: setup.sh VENV base|dev
#   base  what a user gets: the package and its dependencies
#   dev   and what the tests and checks need: transformers as the oracle, ffmpeg, linters
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 kind=$2

find_python() {
  for name in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    if [ -n "$name" ] && command -v "$name" >/dev/null &&
      "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$name"
      return
    fi
  done
  echo "error: Python 3.11 or newer is needed; name one with PYTHON=..." >&2
  exit 1
}

if [ ! -x "$venv/bin/python" ]; then
  "$(find_python)" -m venv "$venv"
fi
pip="$venv/bin/python -m pip --disable-pip-version-check install --quiet"

echo "setting up $venv ($kind); the first time takes a few minutes"
if [ "$kind" = dev ]; then
  bash scripts/system_packages.sh || echo "going on: the tests that need these programs will be skipped"
  $pip "torch==2.13.*" # the release that the tests' torchvision belongs to
  $pip -e ".[dev]"
  # transformers' picture and video processors import torchvision, and so does peft. Its own torch pin is not
  # wanted; where its compiled operators then do not load, tests/torchvision_import.py lets it be imported.
  $pip --no-deps "torchvision==0.28.*"
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  cp tests/torchvision_import.py "$site/_torchvision_import.py"
  echo "import _torchvision_import" >"$site/_torchvision_import.pth"
  touch "$venv/.dev"
else
  $pip -e .
fi
touch "$venv/.base"

#!/bin/sh
# Programs beside Python that tests and benchmarks use: ffmpeg with ffprobe, and Chromium. Safe to run again.
set -eu

missing=""
for program in ffmpeg ffprobe; do
    command -v "$program" >/dev/null 2>&1 || missing="ffmpeg"
done
chromium=""
for program in "${CHROMIUM:-chromium}" chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$program" >/dev/null 2>&1 && chromium=$program && break
done
[ -n "$chromium" ] || missing="$missing chromium"
if [ -z "$missing" ]; then
    echo "nothing to install"
    exit 0
fi
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # one word for each package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing
else
    echo "missing: $missing; install, for example: sudo apt-get install $missing, or: brew install $missing" >&2
    exit 1
fi

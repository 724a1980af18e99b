#!/bin/sh
# Programs beside Python that tests and benchmarks use: ffmpeg with ffprobe. Safe to run again.
set -eu

missing=""
for program in ffmpeg ffprobe; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
if [ -z "$missing" ]; then
    echo "nothing to install"
    exit 0
fi
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq ffmpeg
else
    echo "missing:$missing; install ffmpeg, for example: sudo apt-get install ffmpeg, or: brew install ffmpeg" >&2
    exit 1
fi

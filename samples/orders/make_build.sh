#!/bin/sh
# Compiles one build of the sample into a directory: make_build.sh EDITION DIRECTORY
set -eu
[ $# -eq 2 ] || { echo "usage: make_build.sh EDITION DIRECTORY" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd -P)
command -v javac >/dev/null || { echo "make_build.sh: there is no javac: apt-get install default-jdk-headless" >&2; exit 1; }
mkdir -p "$2"
javac --release 17 -d "$2" "$here/Orders.java"
printf '%s\n' "$1" >"$2/edition"

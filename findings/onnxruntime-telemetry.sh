#!/usr/bin/env bash
# onnxruntime: its builds for Linux send telemetry, from the import on, and `disable_telemetry_events` comes too late.
#
# Versions: onnxruntime 1.32.0.
#
# A good guess: telemetry is a thing of its builds for Windows, as it was for years; and where it is not wanted,
# `onnxruntime.disable_telemetry_events()` turns it off.
#
# What happens: `import onnxruntime` alone makes an id of the machine and a database of events waiting to be sent, in
# `~/.cache/Microsoft/DeveloperTools/.onnxruntime`, and a thread that sends them. The call can only be made after the
# import, when both are there. The variable ORT_DISABLE_TELEMETRY=1, set before the import, leaves nothing behind. Where
# it sees that it is being tested (`CI` and the like), it keeps quiet by itself, so that nobody notices there.
#
# Why it matters: a server says to a third party that it runs, with which model and on what machine; and where it may
# write nothing but its data, a warning on each start is the only sign.
#
# Seen:
#   onnxruntime 1.32.0
#   import:                              deviceid onnxruntime.db
#   import, then disable:                deviceid onnxruntime.db
#   ORT_DISABLE_TELEMETRY=1, then import: nothing
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0

left_by() {  # the files that this leaves in an empty home folder, with no sign of a test in the environment
    rm -rf "$folder/home" && mkdir "$folder/home"
    env --ignore-environment "PATH=$PATH" "HOME=$folder/home" "${@:2}" "$folder/venv/bin/python" -c "$1" 2>/dev/null
    found=$(find "$folder/home" -type f -printf '%f ' | tr ' ' '\n' | sort | xargs)
    echo "${found:-nothing}"
}

"$folder/venv/bin/python" -c 'import onnxruntime; print("onnxruntime", onnxruntime.__version__)'
imported=$(left_by 'import onnxruntime')
disabled=$(left_by 'import onnxruntime; onnxruntime.disable_telemetry_events()')
before=$(left_by 'import onnxruntime' ORT_DISABLE_TELEMETRY=1)
echo "import:                              $imported"
echo "import, then disable:                $disabled"
echo "ORT_DISABLE_TELEMETRY=1, then import: $before"
[ "$imported" != nothing ] && [ "$disabled" != nothing ] && [ "$before" = nothing ] || { echo "No longer as stated."; exit 1; }
echo "As stated."

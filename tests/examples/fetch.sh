#!/usr/bin/env bash
# What the examples in examples/onnx need besides Python: tests/examples/fetch.sh FOLDER
#
#   FOLDER/node_modules   ONNX Runtime for Node.js
#   FOLDER/include        the headers of ONNX Runtime's C++ API. The library itself is in the Python package
#
# What is not available on this machine is left out, and its tests are skipped by name.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

node_module() { # --ignore-scripts: its install script would download the CUDA libraries
    if ! command -v npm >/dev/null; then
        echo "the JavaScript example will not be tested: npm is not installed"
    elif ! npm install --prefix "$work" --ignore-scripts --silent onnxruntime-node@1.30.0 >"$work/log" 2>&1; then
        echo "the JavaScript example will not be tested: npm cannot install onnxruntime-node: $(tail -n 1 "$work/log")"
    else
        rm -rf "$work"/node_modules/onnxruntime-node/bin/*/{darwin,win32} # 200 MB for other systems
        mv "$work/node_modules" "$folder/"
    fi
}

apt() { # apt-get with its own list of sources and its own folders, so that nothing of this system changes
    local options=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/sources")
    options+=(-o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=)
    (cd "$work" && apt-get -qq "${options[@]}" "$@")
}

headers() { # from Debian 13, the first release that has them, also on an older one
    local keys=/usr/share/keyrings/debian-archive-keyring.gpg mirror
    mirror=$(grep -rhoE 'https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1) || true
    if [ -z "$mirror" ] || [ ! -e $keys ]; then
        echo "the C++ example will not be tested: this is not Debian, which has the headers of ONNX Runtime"
        return
    fi
    mkdir -p "$work"/{sources,lists/partial,cache/archives/partial}
    echo "deb [signed-by=$keys] $mirror trixie main" >"$work/sources/trixie.list"
    if apt update >"$work/log" 2>&1 && apt download libonnxruntime-dev >"$work/log" 2>&1; then
        dpkg-deb -x "$work"/libonnxruntime-dev_*.deb "$work/headers"
        mv "$work/headers/usr/include/onnxruntime" "$folder/include"
    else
        echo "the C++ example will not be tested: libonnxruntime-dev is not available: $(tail -n 1 "$work/log")"
    fi
}

[ -e "$folder/node_modules" ] || node_module
[ -e "$folder/include" ] || headers

#!/usr/bin/env bash
# What the TensorRT tests run on, without a GPU: tests/tensorrt/fetch.sh PYTHON FOLDER
#
#   FOLDER/8.6 10.3 10.16 11.4    NVIDIA's Python bindings of four versions over stub libraries: names and signatures, nothing runs
#   FOLDER/plugin                 the package of ONNX Runtime's plugin for TensorRT-RTX, unchanged
#   FOLDER/builder                the 11.4 bindings over the TensorRT-RTX library, which parses and builds engines on a CPU
#
# Each has a module `tensorrt` (for PYTHONPATH) and lib/ (for LD_LIBRARY_PATH). What a registry does not have for this Python or processor
# is left out, and its tests are skipped by name. For tests alone: this combination of bindings and library is not one that NVIDIA supports.
set -euo pipefail
python=$1 folder=$2
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # WHEEL==VERSION DEST
    if "$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$work/$1" "$1" 2>"$work/log"; then
        "$python" -m zipfile -e "$work/$1"/*.whl "$2"
    else
        echo "$1 cannot be had for this Python or processor, so its tests will be skipped: $(tail -n 1 "$work/log")"
        return 1
    fi
}

stub() { # LIBRARY FUNCTION…: a shared library whose functions return nothing
    local library=$1
    shift
    printf 'void *%s(void) { return 0; }\n' "$@" >"$work/stub.c"
    cc -shared -fPIC -Wl,-soname,"${library##*/}" -o "$library" "$work/stub.c"
}

works() { # VERSION: whether this Python imports what is there, which may have been fetched for another one
    [ -e "$folder/$1/tensorrt/__init__.py" ] &&
        PYTHONPATH=$folder/$1 LD_LIBRARY_PATH=$folder/$1/lib "$python" -c 'import tensorrt' 2>/dev/null
}

module() { # FOLDER: `import tensorrt` as the full wheels have it
    mkdir -p "$1/tensorrt"
    printf 'from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n' >"$1/tensorrt/__init__.py"
}

bindings() { # VERSION WHEEL==VERSION
    works "$1" && return
    rm -rf "${folder:?}/$1" # half of one, from a run that was stopped
    fetch "$2" "$folder/$1" || { rm -rf "${folder:?}/$1"; return 0; }
    local lib=$folder/$1/lib major=${1%%.*}
    mkdir -p "$lib"
    stub "$lib/libnvinfer.so.$major" createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL \
        getBuilderPluginRegistry getPluginRegistry
    stub "$lib/libnvinfer_plugin.so.$major" initLibNvInferPlugins
    stub "$lib/libnvonnxparser.so.$major" createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getNvOnnxParserVersion
    if [ "$major" = 8 ]; then # its Caffe and UFF parsers, which nothing here asks for
        stub "$lib/libnvparsers.so.8" _ZN11nvuffparser15createUffParserEv _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi \
            _ZN14nvcaffeparser117createCaffeParserEv _ZN14nvcaffeparser123shutdownProtobufLibraryEv
    fi
    module "$folder/$1"
}

plugin() {
    [ -e "$folder/plugin/complete" ] && return
    rm -rf "$folder/plugin"
    fetch onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0 "$folder/plugin" || { rm -rf "$folder/plugin"; return 0; }
    touch "$folder/plugin/complete"
}

builder() {
    works builder && return
    [ -e "$folder/11.4/tensorrt/__init__.py" ] && [ -e "$folder/plugin/complete" ] || return 0
    rm -rf "$folder/builder"
    local lib=$folder/builder/lib from=$folder/plugin/onnxruntime_ep_nv_tensorrt_rtx
    mkdir -p "$lib"
    ln "$from"/libtensorrt_rtx.so.*.* "$lib/libnvinfer.so.11"
    ln "$from"/libtensorrt_onnxparser_rtx.so.*.* "$lib/libnvonnxparser.so.11"
    (cd "$lib" && ln -s libnvinfer.so.11 libtensorrt_rtx.so.1)
    stub "$lib/libnvinfer_plugin.so.11" initLibNvInferPlugins
    cp -r "$folder/11.4/tensorrt_bindings" "$folder/builder/"
    module "$folder/builder"
}

if ! command -v cc >/dev/null; then
    echo "no C compiler (cc) here: tests of TensorRT will be skipped"
    exit 0
fi
bindings 10.3 tensorrt-cu12-bindings==10.3.0
bindings 10.16 tensorrt-cu13-bindings==10.16.1.11
bindings 11.4 tensorrt-cu13-bindings==11.4.0.106
bindings 8.6 tensorrt-bindings==8.6.1
plugin
builder

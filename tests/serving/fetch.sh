#!/usr/bin/env bash
# A real Triton Inference Server without a container or a GPU: tests/serving/fetch.sh PYTHON FOLDER
#
#   FOLDER/venv       the server that nvidia-pytriton bundles, started directly, and what its Python models import
#   FOLDER/backends   its Python backend, and stand-ins for the two that need more: folders `onnxruntime` and `tensorrt` whose models are
#                     played by tests/serving/stand_in.py, under unmodified configs
#
# numpy stays below 2: with a newer one the server's Python backend passes empty tensors on. Where the wheel or libpython cannot be had,
# the tests are skipped by name.
set -euo pipefail
python=$1 folder=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
venv=$folder/venv version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ ! -e "$folder/installed" ] || [ "$0" -nt "$folder/installed" ]; then
    rm -rf "$venv" "$folder/installed"
    "$python" -m venv "$venv"
    if ! "$venv/bin/python" -m pip install --quiet nvidia-pytriton==0.7.0 'numpy<2' onnxruntime 2>"$folder/log"; then
        echo "Triton cannot be had for this Python or processor, so its tests will be skipped: $(tail -n 1 "$folder/log")"
        rm -rf "$venv"
        exit 0
    fi
    touch "$folder/installed"
fi
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
server=$site/pytriton/tritonserver
rm -rf "$folder/backends"
for backend in python onnxruntime tensorrt; do # copies: a link out of its folder is refused
    mkdir -p "$folder/backends/$backend"
done
cp "$server"/backends/python/{libtriton_python.so,triton_python_backend_utils.py} "$server/python_backend_stubs/$version/triton_python_backend_stub" \
    "$folder/backends/python/"
cp "$here/stand_in.py" "$folder/backends/onnxruntime/model.py"
cp "$here/stand_in.py" "$folder/backends/tensorrt/model.py"
ln -sfn "$server/bin/tritonserver" "$folder/tritonserver"
"$python" - >"$folder/libraries" <<END
import sysconfig
print("$site/nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"), sep=":")
END

#!/usr/bin/env bash
# Test the package on an emulated aarch64 processor, without a Jetson: tests/arm/run.sh PYTHON BUNDLE
# It installs the wheel with library versions that JetPack 6 can have, runs its commands under qemu-user, and compares
# the results with those of the host. JetPack 6 has Python 3.10, which no Debian release contains; bookworm has 3.11.
# So pip chooses the versions for 3.10 and installs their builds for 3.11. Speed, CUDA and TensorRT are not tested.
set -Eeuo pipefail
python=$1 bundle=$2
work=build/arm run=build/arm/run bound=1e-4 passed=0
trap 'echo "$passed passed, 1 failed"' ERR
# The last versions for Python 3.10. A later ONNX Runtime (1.31) also crashes under qemu-user 7.2.
pins=(numpy==2.2.6 onnxruntime==1.23.2)
# The platforms that pip accepts on JetPack 6, which has glibc 2.35.
aarch64=(--only-binary=:all: --implementation cp --platform manylinux2014_aarch64)
for minor in {17..35}; do aarch64+=(--platform "manylinux_2_${minor}_aarch64"); done

skip() {
    echo "$1: the package was not tested on aarch64"
    exit 0
}

check() { # TITLE COMMAND…: run the command, which must succeed
    echo "== $1"
    "${@:2}"
    passed=$((passed + 1))
}

pip() { "$python" -m pip "$1" -qq --disable-pip-version-check "${@:2}"; }

arm() { # run Python for aarch64, without the variables that configure Python and BLAS on the host
    env -i LC_ALL=C.UTF-8 PYTHONHOME="$PWD/$work/debian/usr" PYTHONPATH="$PWD/$run/package:$PWD/$work/libraries" \
        BCM_EDGE_CACHE_DIR="$BCM_EDGE_CACHE_DIR" \
        qemu-aarch64-static -cpu cortex-a72 -L $work/debian $work/debian/usr/bin/python3.11 "$@"
}

missing=()
command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
[ -d $work/debian ] || command -v debootstrap >/dev/null || missing+=(debootstrap debian-archive-keyring)
if [ ${#missing[@]} -gt 0 ]; then
    [ "$EUID" -eq 0 ] || skip "${missing[*]} not installed, and only root can install them"
    echo "installing with apt-get: ${missing[*]} (to run programs for aarch64, and to fetch a Python for it)"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -qq --no-install-recommends "${missing[@]}"; } >/dev/null ||
        skip "${missing[*]} not installed, and apt-get cannot install them"
fi
[ -d $work/debian ] || [ "$EUID" -eq 0 ] || skip "debootstrap runs as root only"

# Everything that is fetched is written to NAME.partial and renamed when it is complete.
rm -rf $run $work/*.partial
mkdir -p $run/host $run/arm
export BCM_EDGE_CACHE_DIR=$PWD/$run/cache
if [ ! -d $work/debian ]; then
    echo "fetching Python for aarch64"
    options=(--arch=arm64 --foreign --variant=minbase --include=python3)
    debootstrap "${options[@]}" bookworm $work/debian.partial >$work/debootstrap.log ||
        { tail -n 3 $work/debootstrap.log && false; }
    # The second stage of debootstrap would have to run aarch64 programs, so the packages are unpacked here.
    for package in $work/debian.partial/var/cache/apt/archives/*.deb; do
        dpkg-deb -x "$package" $work/debian.partial
        rm "$package"
    done
    mv $work/debian.partial $work/debian
fi
if [ ! -d $work/tools ]; then # what the wheel is built with, so that the build needs no network
    pip download --no-deps --only-binary=:all: -d $work/tools.partial setuptools
    mv $work/tools.partial $work/tools
fi
# qemu-user shows /proc/cpuinfo of the host, whose flags decide which backend is preferred. This is a Cortex-A72.
for processor in $(seq 0 $(($(nproc) - 1))); do
    printf '%s\t: %s\n' processor "$processor" Features "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid" \
        "CPU implementer" 0x41 "CPU architecture" 8 "CPU variant" 0x0 "CPU part" 0xd08 "CPU revision" "3"$'\n'
done >$work/debian/proc/cpuinfo

build() { # from a copy of the checkout, where setuptools would also pack the files in build/lib of older builds
    mkdir $run/source
    find . -mindepth 1 -maxdepth 1 ! -name '.*' ! -name build ! -name demo ! -name '*.egg-info' \
        -exec cp -r -t $run/source {} +
    pip wheel --no-deps --no-index --find-links $work/tools -w $run ./$run/source
    pip install --no-deps --no-index --no-compile --target $run/package $run/bcm_edge-*.whl
}
check "wheel" build
wheel=$(echo $run/bcm_edge-*.whl)

sed -E '/^Requires-/!d; /extra ==/{/jetson6/!d}' $run/package/bcm_edge-*.dist-info/METADATA >$run/wanted
check "extra jetson6" grep -q 'extra == .jetson6' $run/wanted # pip only warns if an extra does not exist
echo "${pins[@]}" >>$run/wanted
if ! cmp -s $run/wanted $work/libraries/wanted; then
    echo "fetching libraries for aarch64"
    pip install --dry-run --ignore-installed --target $run/none "${aarch64[@]}" --python-version 3.10 \
        --report $run/resolved.json "${wheel}[jetson6]" "${pins[@]}"
    # The libraries of CUDA are large and not used here, so they are left out.
    mapfile -t libraries < <("$python" -c '
import json, sys
for package in json.load(open(sys.argv[1]))["install"]:
    if not package["metadata"]["name"].startswith(("nvidia", "bcm-edge")):
        print("{name}=={version}".format(**package["metadata"]))' $run/resolved.json)
    pip install --no-deps --no-compile --target $work/libraries.partial "${aarch64[@]}" --python-version 3.11 \
        "${libraries[@]}"
    cp $run/wanted $work/libraries.partial
    rm -rf $work/libraries
    mv $work/libraries.partial $work/libraries
fi

cp -r "$bundle" $run/bundle # a copy, because verify writes into it
generate=(generate $run/bundle --backend onnxruntime -n 10 --label all --seed 7 --schedule mixture-4)
invert=(invert $run/bundle $run/host/images.npz --backend onnxruntime --seed 7)
edge=$run/package/bin/bcm-edge
check "generate, on the host" "$python" cli.py "${generate[@]}" -o $run/host/images.npz
check "invert, on the host" "$python" cli.py "${invert[@]}" -o $run/host/latents.npz
check "import cuda.core" arm -c 'import cuda.core' # it must be importable without CUDA
check "doctor" arm $edge doctor $run/bundle
check "generate" arm $edge "${generate[@]}" -o $run/arm/images.npz
check "invert" arm $edge "${invert[@]}" -o $run/arm/latents.npz
check "verify" arm $edge verify $run/bundle --backend onnxruntime --precision fp32
compare() { "$python" "$(dirname "$0")/compare.py" $run/host $run/arm $bound >$run/compared; }
check "compare" compare

versions='import platform; from importlib.metadata import version
names = ("numpy", "onnxruntime", "pillow", "click", "rich")
libraries = ", ".join(f"{name} {version(name)}" for name in names)
print(f"{platform.machine()}, Python {platform.python_version()}, {libraries}")'
echo
echo "$(basename "$wheel"), fp32 on onnxruntime: doctor, generate, invert, verify"
cuda_core=$(arm -c 'import importlib.metadata as m; print(m.version("cuda-core"))')
echo "emulated: $(arm -c "$versions"), cuda-core $cuda_core"
echo "the host: $("$python" -c "$versions")"
cat $run/compared
echo "$SECONDS s"
echo "$passed passed, 0 failed"

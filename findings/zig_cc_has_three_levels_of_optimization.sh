#!/usr/bin/env bash
# ziglang 0.17.1 (the wheel), `zig cc` as a C compiler for devices.
#
# Expected: clang's levels, as the rest of clang's command line is taken: -O1 leaves loops as they
# are, -O2 and -O3 turn them into vectors and unroll them, -Os keeps code small, and -Oz keeps it
# smallest (its functions are marked `minsize`).
# Seen: three levels. -O1, -O2 and -O3 give the same object, byte for byte, of vectors, unrolled; so
# do -Os and -Oz, whose functions are marked `optsize` and none `minsize`. Nothing says so. Whoever
# measures what -O1 or -Oz would do to speed or size of a device's binary measures -O3 or -Os.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ziglang==0.17.1"
export ZIG_GLOBAL_CACHE_DIR="$folder/cache" ZIG_LOCAL_CACHE_DIR="$folder/cache"
zig() { "$folder/venv/bin/python" -m ziglang "$@"; }

cd "$folder"
cat >scale.c <<'C'
void scale(float *restrict y, const float *restrict x, float factor, int count) {
  for (int i = 0; i < count; i++) y[i] = x[i] * factor;
}
C
for level in -O0 -O1 -O2 -O3 -Os -Oz; do
  zig cc "$level" -target x86_64-linux-musl -c scale.c -o "scale$level.o"
  zig cc "$level" -Wno-unused-command-line-argument -target x86_64-linux-musl -S -emit-llvm scale.c -o "scale$level.ll"
  echo "$level: $(sha256sum <"scale$level.o" | cut -c1-12), vectors $(grep -c '<4 x float>' "scale$level.ll" || true)," \
    "optsize $(grep -c optsize "scale$level.ll" || true), minsize $(grep -c minsize "scale$level.ll" || true)"
done
echo "ziglang $(zig version)"

cmp scale-O1.o scale-O2.o
cmp scale-O2.o scale-O3.o
cmp scale-Os.o scale-Oz.o
! cmp --silent scale-O0.o scale-O1.o
! cmp --silent scale-O3.o scale-Os.o
grep -q '<4 x float>' scale-O1.ll
grep -q optsize scale-Oz.ll
! grep -q minsize scale-Oz.ll

#!/usr/bin/env bash
# Remove from installed packages what a running server never opens: slim_packages.sh SITE_PACKAGES
# scripts/test_docker_build.sh runs what is left.
set -euo pipefail
cd "$1"
before=$(du -sm . | cut -f1)
find . -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.a' -o -name '*.h' \) -delete
rm -rf numpy/f2py numpy/distutils # they compile Fortran and C
rm -rf numpy/{ma,polynomial,testing} # nothing here imports them
rm -rf numpy/_core/_*_tests.*.so numpy/_core/_simd.*.so # for numpy's own tests
rm -rf pygments/lexers # rich would colour source code with them
rm -rf cffi pycparser                                # soundfile was made with them; _cffi_backend is what it runs
rm -rf google/{api,cloud,gapic,logging,longrunning,type} # but google/rpc, for errors' details
# A second copy of the runtime, for C programs; and what makes models rather than runs them.
rm -rf onnxruntime/capi/libonnxruntime.so.* onnxruntime/{transformers,quantization,tools}
# uvloop is shipped with its debugging symbols, 12 MB of them.
[ ! -d uvloop ] || find uvloop -name '*.so' -exec strip --strip-debug {} +
echo "slim_packages: $before MB before, $(du -sm . | cut -f1) MB after"

#!/usr/bin/env bash
# Delete files of installed packages that a running server never uses: slim_packages.sh SITE_PACKAGES
# scripts/test_docker_build.sh tests the result.
set -euo pipefail
cd "$1"
before=$(du -sm . | cut -f1)
find . -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.a' -o -name '*.h' \) -delete
rm -rf numpy/f2py numpy/distutils # compile Fortran and C
rm -rf numpy/{ma,polynomial,testing} # Earmark does not import them
rm -rf numpy/_core/_*_tests.*.so numpy/_core/_simd.*.so # numpy's own tests
rm -rf pygments/lexers # rich uses them to highlight source code
rm -rf cffi pycparser                                # soundfile needs only _cffi_backend at run time
rm -rf google/{api,cloud,gapic,logging,longrunning,type} # google/rpc stays, for error details
# A second copy of the runtime for C programs, and tools that create models.
rm -rf onnxruntime/capi/libonnxruntime.so.* onnxruntime/{transformers,quantization,tools}
# Commands of packages: only Python stays.
find ../../../bin -not -type d -not -name 'python*' -delete
# The wheel of uvloop has 12 MB of debugging symbols.
[ ! -d uvloop ] || find uvloop -name '*.so' -exec strip --strip-debug {} +
echo "slim_packages: $before MB before, $(du -sm . | cut -f1) MB after"

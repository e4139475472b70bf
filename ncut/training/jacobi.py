"""Eigenvectors of a small matrix on its device, without the host ever waiting for them.

`torch.linalg.eigh` asks the device whether it has converged, and so waits for it. Jacobi's
rotations in a fixed number of sweeps need no question: in one small kernel where NVRTC, which
comes with torch, can compile it; else as operations of torch, on any device.

Source: Golub and Van Loan (2013), Matrix Computations, section 8.5.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ncut.training.placed import WIDTH

SWEEPS = 8
"""Each rotates every pair once; matrices of 16 need five or six for all digits."""

AGREES = 1e-10
"""Largest error of the kernel's trial for it to be used."""

Eigh = Callable[[Tensor], tuple[Tensor, Tensor]]

_SOURCE = """
extern "C" __global__ void jacobi(const double* matrix, double* values, double* vectors) {
    __shared__ double a[M][M + 1], v[M][M + 1], cosine[M / 2], sine[M / 2];
    __shared__ int first[M / 2], second[M / 2];
    const int thread = threadIdx.x, at = thread / (M / 2), pair = thread % (M / 2);
    for (int i = thread; i < M * M; i += blockDim.x) {
        a[i / M][i % M] = matrix[i];
        v[i / M][i % M] = i / M == i % M ? 1.0 : 0.0;
        vectors[i] = nan("");
        if (i < M) values[i] = nan("");
    }
    __syncthreads();
    for (int round = 0; round < SWEEPS * (M - 1); ++round) {
        if (thread < M / 2) {
            const int r = round % (M - 1), n = M - 1;
            const int p = thread == 0 ? n : (r + thread) % n, q = (r - thread + n) % n;
            double c = 1.0, s = 0.0;
            if (a[p][q] != 0.0) {
                const double tau = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                const double t = (tau < 0.0 ? -1.0 : 1.0) / (fabs(tau) + sqrt(1.0 + tau * tau));
                c = 1.0 / sqrt(1.0 + t * t);
                s = t * c;
            }
            first[thread] = p; second[thread] = q; cosine[thread] = c; sine[thread] = s;
        }
        __syncthreads();
        const int p = first[pair], q = second[pair];
        const double c = cosine[pair], s = sine[pair];
        double x = a[at][p], y = a[at][q];
        a[at][p] = c * x - s * y;
        a[at][q] = s * x + c * y;
        x = v[at][p]; y = v[at][q];
        v[at][p] = c * x - s * y;
        v[at][q] = s * x + c * y;
        __syncthreads();
        x = a[p][at]; y = a[q][at];
        a[p][at] = c * x - s * y;
        a[q][at] = s * x + c * y;
        __syncthreads();
    }
    if (thread < M) {
        int rank = 0;
        for (int j = 0; j < M; ++j)
            rank += a[j][j] > a[thread][thread] || (a[j][j] == a[thread][thread] && j < thread);
        values[rank] = a[thread][thread];
        for (int i = 0; i < M; ++i) vectors[i * M + rank] = v[i][thread];
    }
}
"""

_kernels: dict[torch.device, Eigh | None] = {}


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors of a symmetric matrix.

    Parameters
    ----------
    matrix : Tensor of float64, shape (16, 16)

    Returns
    -------
    tuple of Tensor
        Of shapes (16,) and (16, 16), a column for each eigenvector. NaN if the matrix has any.
    """
    kernel = _kernels.get(matrix.device)
    return rotated(matrix) if kernel is None else kernel(matrix)


def prepare(device: torch.device) -> bool:
    """Make ready what later calls on the device need; whether they will use the kernel.

    The kernel is tried on one matrix, and left out if it cannot be compiled or is wrong.
    """
    _schedule(device)
    if device not in _kernels:
        _kernels[device] = _tried(device) if device.type == "cuda" else None
    return _kernels[device] is not None


def rotated(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """As `eigh`, by operations of torch: some hundred for each sweep."""
    plain, turned = _schedule(matrix.device)
    vectors = torch.eye(WIDTH, dtype=matrix.dtype, device=matrix.device)
    for _ in range(SWEEPS * (WIDTH - 1)):
        # Pairs are neighbours; the rotation also moves the columns to their next partners.
        diagonal = matrix.diagonal()
        between = matrix[::2, 1::2].diagonal()
        tangent = (2 * between / (diagonal[::2] - diagonal[1::2])).nan_to_num()
        angle = (0.5 * torch.atan(tangent))[:, None].expand(-1, 2).reshape(-1, 1)
        rotation = torch.cos(angle) * plain + torch.sin(angle) * turned
        matrix = rotation.T @ matrix @ rotation
        vectors = vectors @ rotation
    values, order = matrix.diagonal().sort(descending=True)
    return values, vectors[:, order]


@lru_cache(maxsize=16)
def _schedule(device: torch.device) -> tuple[Tensor, Tensor]:
    """The parts of a rotation that the cosines and the sines are factors of.

    All pairs meet once in 15 rounds, as players of a tournament do.
    """
    top, bottom = [*range(0, WIDTH, 2)], [*range(1, WIDTH, 2)]
    tops, bottoms = [top[0], bottom[0], *top[1:-1]], [*bottom[1:], top[-1]]
    moved = [place for pair in zip(tops, bottoms, strict=True) for place in pair]
    plain = torch.eye(WIDTH, dtype=torch.float64)
    turned = torch.zeros_like(plain)
    for row in top:
        turned[row, row + 1], turned[row + 1, row] = -1.0, 1.0
    return plain[:, moved].to(device), turned[:, moved].to(device)


def _tried(device: torch.device) -> Eigh | None:
    """The kernel, if it can be compiled and finds what LAPACK does."""
    try:
        with torch.cuda.device(device):
            generator = torch.Generator().manual_seed(0)
            matrix = torch.randn((WIDTH, WIDTH), generator=generator, dtype=torch.float64)
            matrix = matrix + matrix.T
            there = matrix.to(device)  # first: it makes the device's context this thread's
            kernel = _compiled(device)
            values, vectors = (found.cpu() for found in kernel(there))
        expected = torch.linalg.eigvalsh(matrix).flip(0)
        residual = matrix @ vectors - vectors * values
        right = max((values - expected).abs().max(), residual.abs().max()) < AGREES
    except (OSError, AttributeError, RuntimeError):
        return None
    return kernel if right else None


def _compiled(device: torch.device) -> Eigh:
    """The kernel, compiled for the current device."""
    if torch.version.hip or not torch.version.cuda:
        raise OSError("the kernel is for CUDA")
    image = _image("".join(map(str, torch.cuda.get_device_capability(device))))
    driver = ctypes.CDLL("libcuda.so.1")
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _check(driver.cuModuleLoadData(ctypes.byref(module), image))
    _check(driver.cuModuleGetFunction(ctypes.byref(function), module, b"jacobi"))
    threads = WIDTH * WIDTH // 2

    def launch(matrix: Tensor) -> tuple[Tensor, Tensor]:
        matrix = matrix.contiguous()
        values, vectors = matrix.new_empty(WIDTH), matrix.new_empty((WIDTH, WIDTH))
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (matrix, values, vectors)]
        arguments = (ctypes.c_void_p * 3)(*(ctypes.addressof(pointer) for pointer in pointers))
        with torch.cuda.device(device):
            stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
            _check(
                driver.cuLaunchKernel(
                    function, 1, 1, 1, threads, 1, 1, 0, stream, arguments, ctypes.c_void_p()
                )
            )
        return values, vectors

    return launch


def _image(architecture: str) -> bytes:
    """Machine code of the kernel, by NVRTC."""
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    source = _SOURCE.encode()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"jacobi.cu", 0, None, None))
    try:
        chosen = (f"--gpu-architecture=sm_{architecture}", f"-DM={WIDTH}", f"-DSWEEPS={SWEEPS}")
        options = (ctypes.c_char_p * len(chosen))(*(option.encode() for option in chosen))
        _check(nvrtc.nvrtcCompileProgram(program, len(chosen), options))
        size = ctypes.c_size_t()
        _check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        image = ctypes.create_string_buffer(size.value)
        _check(nvrtc.nvrtcGetCUBIN(program, image))
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return image.raw


def _nvrtc() -> ctypes.CDLL:
    """The library of torch's own CUDA version: loaded already, of the system, or of a wheel."""
    assert torch.version.cuda is not None
    name = f"libnvrtc.so.{torch.version.cuda.split('.')[0]}"
    packages = Path(torch.__file__).parents[1]
    wheels = [str(path) for path in packages.glob(f"nvidia/*/lib/{name}")]
    for place in (name, *wheels):
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise OSError(f"{name} was not found")


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"CUDA: error {status}")

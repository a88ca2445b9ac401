"""Which kernels this processor can run, compiled at first use and probed before they are trusted."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import llvmlite.binding as llvm
from llvmlite import ir

from dynamics.kernels.dense import Tile
from dynamics.kernels.peak import measured_peak, write_peak
from dynamics.kernels.rollout import write_rollout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernel:
    """A compiled rollout; `run` may be called from several threads at once and lets Python's other threads go on."""

    name: str
    """float32 or bfloat16."""
    tile: Tile
    run: ctypes._CFuncPtr
    """run(arguments, first, end, scratch), see `rollout.write_rollout`."""
    peak: ctypes._CFuncPtr
    """peak(rounds, target), see `peak.write_peak`."""

    def measured_peak(self, threads: int) -> float:
        """Return this processor's limit for this kind of arithmetic on `threads` threads [GFLOP/s]; takes a quarter of a second."""
        return measured_peak(self.peak, self.tile.lanes, self.bfloat16, threads)

    @property
    def bfloat16(self) -> bool:
        """Whether hidden activations and weights are rounded to bfloat16."""
        return self.name == "bfloat16"


def processor_features() -> frozenset[str]:
    """Return the names of the instruction sets that this processor has and the system lets us use, as LLVM calls them."""
    try:
        return frozenset(name for name, has in llvm.get_host_cpu_features().items() if has)
    except RuntimeError:  # LLVM cannot tell
        return frozenset()


def has_bfloat16(features: frozenset[str]) -> bool:
    """Return whether a processor multiplies pairs of bfloat16."""
    return {"avx512f", "avx512bf16"} <= features


def best_tile(features: frozenset[str]) -> Tile | None:
    """Return the tile that suits the registers of a processor, or None where there are no fused multiply-adds."""
    if "avx512f" in features:
        return Tile(lanes=16, vectors=2, outputs=8)
    if {"avx2", "fma"} <= features:
        return Tile(lanes=8, vectors=2, outputs=4)
    return None


def compile_kernel(name: str) -> Kernel | None:
    """Return the kernel `name` compiled for this processor, or None where it lacks the instructions."""
    return _compile(name, processor_features())


@functools.cache
def _compile(name: str, features: frozenset[str]) -> Kernel | None:
    bfloat16 = name == "bfloat16"
    tile = best_tile(features)
    if tile is None or (bfloat16 and not has_bfloat16(features)):
        return None
    module = ir.Module(f"reflexarc_{name}")
    write_rollout(module, "rollout", tile, bfloat16)
    write_peak(module, "peak", tile, bfloat16)
    functions = load(module, features, {"rollout": 4, "peak": 2})
    return Kernel(name, tile, functions["rollout"], functions["peak"])


def load(module: ir.Module | str, features: frozenset[str], arguments: Mapping[str, int]) -> dict[str, ctypes._CFuncPtr]:
    """Return functions of a module, compiled for a processor with `features`, by name; each takes so many 64-bit integers."""
    engine, functions = _compiled_module(str(module), features), {}
    for name, count in arguments.items():
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(engine.get_function_address(name))
        function.engine = engine  # owns the instructions: they live as long as the function
        functions[name] = function
    return functions


def _compiled_module(source: str, features: frozenset[str]) -> llvm.ExecutionEngine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # A processor's name stands for all that its kind has; what this one lacks or the system withholds must be switched off.
    known = sorted(set(llvm.get_host_cpu_features()) | features)
    chosen = ",".join(f"{'+' if name in features else '-'}{name}" for name in known) + ",-prefer-256-bit"
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=chosen, opt=3)
    module = llvm.parse_assembly(source)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine

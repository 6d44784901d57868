"""What the lattice does with rows of a few float32 values, each row in one vector register.

Numba leaves short inner loops to the processor's scalar unit; these instructions say what is meant. Arrays are
C-contiguous float32 (n, width), width a power of two known when the caller is compiled. No index is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_instruction: Callable[[Any], Any] = intrinsic(prefer_literal=True)


@_instruction
def add_share(typing: Any, values: Any, to: Any, share: Any, rows: Any, point: Any, width: Any) -> Any:
    """``values[to] += share * rows[point]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, factor, source, position, _ = arguments
        kinds = signature.args
        target = _row(context, builder, (kinds[0], array), (kinds[1], index), width)
        row = builder.load(_row(context, builder, (kinds[3], source), (kinds[4], position), width), align=4)
        added = _fma(builder, _repeat(builder, factor, width), row, builder.load(target, align=4))
        builder.store(added, target, align=4)
        return context.get_dummy_value()

    return types.void(values, to, share, rows, point, width), generate


@_instruction
def blur_row(typing: Any, result: Any, values: Any, vertex: Any, one: Any, other: Any, width: Any) -> Any:
    """``result[vertex] = values[vertex] + (values[one] + values[other]) / 2``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        source = (kinds[1], arguments[1])
        middle, left, right = (
            builder.load(_row(context, builder, source, (kinds[i], arguments[i]), width), align=4) for i in (2, 3, 4)
        )
        half = _repeat(builder, ir.Constant(ir.FloatType(), 0.5), width)
        target = _row(context, builder, (kinds[0], arguments[0]), (kinds[2], arguments[2]), width)
        builder.store(_fma(builder, half, builder.fadd(left, right), middle), target, align=4)
        return context.get_dummy_value()

    return types.void(result, values, vertex, one, other, width), generate


@_instruction
def mix_rows(
    typing: Any, rows: Any, to: Any, values: Any, corners: Any, shares: Any, point: Any, count: Any, width: Any
) -> Any:
    """``rows[to] = sum over r < count of shares[point, r] * values[corners[point, r]]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        source, position = (kinds[2], arguments[2]), (kinds[5], arguments[5])
        corner_of = _row(context, builder, (kinds[3], arguments[3]), position, None)
        share_of = _row(context, builder, (kinds[4], arguments[4]), position, None)
        total = ir.Constant(_vector(width), [0.0] * width.literal_value)
        for r in range(count.literal_value):
            step = [ir.Constant(ir.IntType(64), r)]
            corner, share = builder.load(builder.gep(corner_of, step)), builder.load(builder.gep(share_of, step))
            row = builder.load(_row(context, builder, source, (types.uint32, corner), width), align=4)
            total = _fma(builder, _repeat(builder, share, width), row, total)
        target = _row(context, builder, (kinds[0], arguments[0]), (kinds[1], arguments[1]), width)
        builder.store(total, target, align=4)
        return context.get_dummy_value()

    return types.void(rows, to, values, corners, shares, point, count, width), generate


@_instruction
def transpose(typing: Any, result: Any, to: Any, across: Any, source: Any, row: Any, column: Any, width: Any) -> Any:
    """``result[to : to + width, across : across + width] = source[row : row + width, column : column + width].T``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, size = signature.args, width.literal_value

        def place(first: int, number: int) -> Any:
            array, row, column = zip(kinds[first : first + 3], arguments[first : first + 3], strict=True)
            at = builder.add(context.cast(builder, row[1], row[0], types.intp), ir.Constant(ir.IntType(64), number))
            return _row(context, builder, array, (types.intp, at), width, column)

        vectors = [builder.load(place(3, k), align=4) for k in range(size)]
        step = 1
        while step < size:  # exchange the halves of each square of 2 * step that are not on its diagonal
            lanes = [lane if lane & step == 0 else size + lane - step for lane in range(size)]
            others = [lane + step if lane & step == 0 else size + lane for lane in range(size)]
            for k in (k for k in range(size) if k & step == 0):
                upper, lower = vectors[k], vectors[k + step]
                vectors[k], vectors[k + step] = (_shuffle(builder, upper, lower, m) for m in (lanes, others))
            step *= 2
        for k, vector in enumerate(vectors):
            builder.store(vector, place(0, k), align=4)
        return context.get_dummy_value()

    return types.void(result, to, across, source, row, column, width), generate


def _row(
    context: Any,
    builder: Any,
    array: tuple[Any, Any],
    index: tuple[Any, Any],
    width: Any,
    column: tuple[Any, Any] | None = None,
) -> Any:
    """A pointer to one row, or from one of its columns on, as a vector; as an element where ``width`` is None."""
    struct = context.make_array(array[0])(context, builder, array[1])
    at = context.cast(builder, index[1], index[0], types.intp)
    first = context.cast(builder, column[1], column[0], types.intp) if column else ir.Constant(ir.IntType(64), 0)
    pointer = cgutils.get_item_pointer(  # type: ignore[no-untyped-call]
        context, builder, array[0], struct, [at, first], wraparound=False
    )
    return pointer if width is None else builder.bitcast(pointer, _vector(width).as_pointer())


def _vector(width: Any) -> ir.VectorType:
    return ir.VectorType(ir.FloatType(), width.literal_value)


def _repeat(builder: Any, value: Any, width: Any) -> Any:
    """The same number in all places of a vector."""
    empty = ir.Constant(_vector(width), ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
    return _shuffle(builder, first, empty, [0] * width.literal_value)


def _shuffle(builder: Any, one: Any, other: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _fma(builder: Any, factor: Any, row: Any, addend: Any) -> Any:
    """factor * row + addend; one instruction where the processor has it."""
    product = builder.fmul(factor, row, flags=("contract",))
    return builder.fadd(product, addend, flags=("contract",))

"""Writes LLVM instructions so that a kernel reads as its mathematics: values with operators, loops as functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

F32, I16, I32, I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
POINTER = ir.IntType(8).as_pointer()


class BFloat16(ir.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat16)

    def __hash__(self) -> int:
        return hash(BFloat16)


BF16 = BFloat16()


class Value:
    """A number or a vector of numbers while a kernel runs."""

    def __init__(self, code: Code, value: ir.Value) -> None:
        self.code, self.value = code, value

    @property
    def kind(self) -> ir.Type:
        """LLVM's type."""
        return self.value.type

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        kind = self.kind.element if isinstance(self.kind, ir.VectorType) else self.kind
        return not isinstance(kind, ir.IntType)

    def __add__(self, other: Value | float) -> Value:
        return self._with(other, "fadd", "add")

    def __sub__(self, other: Value | float) -> Value:
        return self._with(other, "fsub", "sub")

    def __rsub__(self, other: float) -> Value:
        return self.like(other) - self

    def __mul__(self, other: Value | float) -> Value:
        return self._with(other, "fmul", "mul")

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Value | float) -> Value:
        return self._with(other, "fdiv", "sdiv")

    def __rtruediv__(self, other: float) -> Value:
        return self.like(other) / self

    def __floordiv__(self, other: Value | int) -> Value:
        return self._with(other, "", "sdiv")

    def __mod__(self, other: Value | int) -> Value:
        return self._with(other, "", "srem")

    def __neg__(self) -> Value:
        return Value(self.code, self.code.builder.fneg(self.value)) if self.is_float else 0 - self

    def __and__(self, other: Value | int) -> Value:
        return self._with(other, "", "and_")

    def __or__(self, other: Value | int) -> Value:
        return self._with(other, "", "or_")

    def __xor__(self, other: Value | int) -> Value:
        return self._with(other, "", "xor")

    def __lshift__(self, other: int) -> Value:
        return self._with(other, "", "shl")

    def __rshift__(self, other: int) -> Value:
        return self._with(other, "", "lshr")

    def __lt__(self, other: Value | float) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Value | float) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Value | float) -> Value:
        return self._compare(">", other)

    def equals(self, other: Value | float) -> Value:
        """Return the truth (i1) of being equal."""
        return self._compare("==", other)

    def like(self, number: Value | float) -> Value:
        """Return `number` as a constant of this value's type."""
        return number if isinstance(number, Value) else self.code.constant(number, self.kind)

    def bits(self, kind: ir.Type) -> Value:
        """Return the same bits read as another type."""
        return Value(self.code, self.code.builder.bitcast(self.value, kind))

    def _with(self, other: Value | float, of_floats: str, of_integers: str) -> Value:
        operation = getattr(self.code.builder, of_floats if self.is_float else of_integers)
        return Value(self.code, operation(self.value, self.like(other).value))

    def _compare(self, sign: str, other: Value | float) -> Value:
        builder = self.code.builder
        compare = builder.fcmp_ordered if self.is_float else builder.icmp_signed
        return Value(self.code, compare(sign, self.value, self.like(other).value))


class Code:
    """The instructions of one function, for vectors of `lanes` float32."""

    def __init__(self, module: ir.Module, name: str, arguments: int, lanes: int) -> None:
        """The function takes `arguments` 64-bit integers, which may stand for addresses, and returns nothing."""
        self.module, self.lanes = module, lanes
        self.vector = ir.VectorType(F32, lanes)
        self.integers = ir.VectorType(I32, lanes)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * arguments), name)
        self.function.attributes.add("noinline")
        self.builder = ir.IRBuilder(self.function.append_basic_block())
        self.arguments = [Value(self, argument) for argument in self.function.args]

    def finish(self) -> ir.Function:
        """End the function."""
        self.builder.ret_void()
        return self.function

    def constant(self, number: float, kind: ir.Type = I64) -> Value:
        """Return a number as a constant; a vector has it in every lane."""
        if isinstance(kind, ir.VectorType):
            element = ir.Constant(kind.element, number)
            return Value(self, ir.Constant(kind, [element] * kind.count))
        return Value(self, ir.Constant(kind, number))

    def load(self, address: Value, kind: ir.Type, index: Value | int = 0, align: int = 4) -> Value:
        """Return the element `index` of an array of `kind` at `address`."""
        return Value(self, self.builder.load(self._pointer(address, kind, index), typ=kind, align=align))

    def store(self, value: Value, address: Value, index: Value | int = 0, align: int = 4) -> None:
        """Write element `index` of an array of the value's type at `address`."""
        self.builder.store(value.value, self._pointer(address, value.kind, index), align=align)

    def broadcast(self, number: Value) -> Value:
        """Return a vector with `number` in every lane."""
        kind = ir.VectorType(number.kind, self.lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number.value, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return Value(self, self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros))

    def intrinsic(self, name: str, result: ir.Type, *arguments: Value) -> Value:
        """Return what LLVM's intrinsic `name` makes of the arguments."""
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(result, [a.kind for a in arguments]), name)
        return Value(self, self.builder.call(function, [a.value for a in arguments]))

    def fma(self, a: Value, b: Value, c: Value | float) -> Value:
        """Return a b + c, rounded once."""
        name = f"llvm.fma.v{self.lanes}f32"
        return self.intrinsic(name, self.vector, a, a.like(b), a.like(c))

    def square_root(self, a: Value) -> Value:
        """Return the square root of every lane."""
        return self.intrinsic(f"llvm.sqrt.v{self.lanes}f32", self.vector, a)

    def where(self, condition: Value, yes: Value, no: Value) -> Value:
        """Return `yes` where the condition holds, else `no`."""
        return Value(self, self.builder.select(condition.value, yes.value, yes.like(no).value))

    def call(self, function: ir.Function, *arguments: Value | int) -> None:
        """Call another function of the module."""
        self.builder.call(function, [a.value if isinstance(a, Value) else ir.Constant(I64, a) for a in arguments])

    def repeat(self, first: Value | int, end: Value | int, body: Callable[..., Sequence[Value] | None],
               carried: Sequence[Value] = ()) -> list[Value]:
        """Run body(i, *carried) for i = first ... end - 1 and return what the last one carried on."""
        builder = self.builder
        start, stop = (v if isinstance(v, Value) else self.constant(v) for v in (first, end))
        entry = builder.block
        head, inside, after = (self.function.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        index.add_incoming(start.value, entry)
        states = []
        for value in carried:
            state = builder.phi(value.kind)
            state.add_incoming(value.value, entry)
            states.append(state)
        builder.cbranch(builder.icmp_signed("<", index, stop.value), inside, after)
        builder.position_at_end(inside)
        results = body(Value(self, index), *(Value(self, state) for state in states)) or ()
        index.add_incoming(builder.add(index, ir.Constant(I64, 1)), builder.block)
        for state, result in zip(states, results, strict=True):
            state.add_incoming(result.value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return [Value(self, state) for state in states]

    def if_(self, condition: Value, then: Callable[[], object], otherwise: Callable[[], object] | None = None) -> None:
        """Run `then` where the condition holds, else `otherwise`."""
        if otherwise is None:
            with self.builder.if_then(condition.value):
                then()
            return
        with self.builder.if_else(condition.value) as (yes, no):
            with yes:
                then()
            with no:
                otherwise()

    def _pointer(self, address: Value, kind: ir.Type, index: Value | int) -> ir.Value:
        pointer = self.builder.inttoptr(address.value, kind.as_pointer())
        number = index.value if isinstance(index, Value) else ir.Constant(I64, index)
        return self.builder.gep(pointer, [number], source_etype=kind)

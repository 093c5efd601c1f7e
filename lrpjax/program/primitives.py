"""What is known of each primitive of JAX: one row for each, and nowhere else.

What is not in the table is unknown everywhere: a layer that no kind covers, an axis that cannot be
followed, a value whose sign is not known.

moves: the operands whose entries become entries of the output, unchanged; all other operands are
    indices or predicates. "-" for a primitive that computes.
one: "x" where the output holds each entry of its operand exactly once, as long as it is no larger.
entry: "x" where an entry of the output depends on the entries at the same place alone.
linear: "all" where the output is linear in its values together, "each" where it is in each of
    two by itself (a product), "0" where it is in operand 0 alone.
role: "sum", "scatter" (operand 0 plus or minus operand 2 at the places that operand 1 says),
    "max", "reduce" (other reductions to fewer numbers), "scan" (along an axis), "conv", "dot",
    "complex" (of complex numbers alone), "random", "branch", "loop", or "-".
axes: how axes go through, by the name of a rule in `axes`.
sign: "keeps" where operands that are not negative give what is not negative, "any" where one such
    operand is enough, "never" where the output is never negative, "-" where none of it is known.
degree: of the output in the scale of the operands: "same", "sum" or "difference" of theirs, a
    number that multiplies theirs, "power" (a parameter does), "none" (a number without scale),
    "-" where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

_ROWS = """
name                      moves  one  entry  linear  role    axes           sign   degree
# moves
reshape                   0      x    -      all     -       reshape        keeps  same
transpose                 0      x    -      all     -       transpose      keeps  same
squeeze                   0      x    -      all     -       squeeze        keeps  same
broadcast_in_dim          0      x    -      all     -       broadcast      keeps  same
rev                       0      x    -      all     -       reverse        keeps  same
slice                     0      -    -      all     -       slice          keeps  same
dynamic_slice             0      -    -      all     -       dynamic_slice  keeps  same
dynamic_update_slice      0-1    -    -      all     -       update         keeps  same
gather                    0      -    -      all     -       gather         keeps  same
scatter                   0,2    -    -      all     -       scatter        keeps  same
pad                       0-1    -    -      all     -       pad            keeps  same
concatenate               all    -    -      all     -       concatenate    keeps  same
split                     0      -    -      all     -       split          keeps  same
stack                     all    -    -      all     -       stack          keeps  same
unstack                   0      -    -      all     -       unstack        keeps  same
tile                      0      -    -      all     -       tile           keeps  same
# moves that stay in place
convert_element_type      0      x    x      all     -       same           keeps  same
reduce_precision          0      x    x      all     -       same           keeps  same
copy                      0      x    x      all     -       same           keeps  same
name                      0      x    x      all     -       same           keeps  same
optimization_barrier      all    x    -      all     -       each           keeps  same
sharding_constraint       0      x    x      all     -       same           keeps  same
layout_constraint         0      x    x      all     -       same           keeps  same
reshard                   0      x    x      all     -       same           keeps  same
pvary                     0      x    x      all     -       same           keeps  same
device_put                all    x    -      all     -       each           keeps  same
stop_gradient             0      -    x      all     -       same           keeps  same
select_n                  1-     -    x      all     -       same           keeps  same
# entry by entry, linear
add                       -      -    x      all     -       same           keeps  same
add_any                   -      -    x      all     -       same           keeps  same
sub                       -      -    x      all     -       same           -      same
neg                       -      -    x      all     -       same           -      same
mul                       -      -    x      each    -       same           keeps  sum
div                       -      -    x      0       -       same           keeps  difference
real                      -      -    x      all     complex same           -      same
imag                      -      -    x      all     complex same           -      same
conj                      -      -    x      all     complex same           -      same
complex                   -      -    x      all     complex same           -      same
# entry by entry
abs                       -      -    x      -       -       same           never  same
max                       -      -    x      -       -       same           any    same
min                       -      -    x      -       -       same           keeps  same
clamp                     -      -    x      -       -       same           keeps  same
sign                      -      -    x      -       -       same           keeps  none
square                    -      -    x      -       -       same           never  2
integer_pow               -      -    x      -       -       same           keeps  power
pow                       -      -    x      -       -       same           keeps  power
sqrt                      -      -    x      -       -       same           never  0.5
rsqrt                     -      -    x      -       -       same           never  -0.5
cbrt                      -      -    x      -       -       same           keeps  -
exp                       -      -    x      -       -       same           never  -
exp2                      -      -    x      -       -       same           never  -
expm1                     -      -    x      -       -       same           keeps  -
log                       -      -    x      -       -       same           -      -
log1p                     -      -    x      -       -       same           keeps  -
logistic                  -      -    x      -       -       same           never  -
tanh                      -      -    x      -       -       same           keeps  -
erf                       -      -    x      -       -       same           keeps  -
erfc                      -      -    x      -       -       same           never  -
erf_inv                   -      -    x      -       -       same           keeps  -
sin                       -      -    x      -       -       same           -      -
cos                       -      -    x      -       -       same           -      -
tan                       -      -    x      -       -       same           -      -
asin                      -      -    x      -       -       same           keeps  -
acos                      -      -    x      -       -       same           never  -
atan                      -      -    x      -       -       same           keeps  -
atan2                     -      -    x      -       -       same           keeps  none
sinh                      -      -    x      -       -       same           keeps  -
cosh                      -      -    x      -       -       same           never  -
asinh                     -      -    x      -       -       same           keeps  -
acosh                     -      -    x      -       -       same           never  -
atanh                     -      -    x      -       -       same           keeps  -
lgamma                    -      -    x      -       -       same           -      -
digamma                   -      -    x      -       -       same           -      -
rem                       -      -    x      -       -       same           keeps  -
round                     -      -    x      -       -       same           keeps  -
floor                     -      -    x      -       -       same           keeps  -
ceil                      -      -    x      -       -       same           keeps  -
nextafter                 -      -    x      -       -       same           -      -
# entry by entry, to truth values and whole numbers
eq                        -      -    x      -       -       same           never  none
ne                        -      -    x      -       -       same           never  none
lt                        -      -    x      -       -       same           never  none
le                        -      -    x      -       -       same           never  none
gt                        -      -    x      -       -       same           never  none
ge                        -      -    x      -       -       same           never  none
and                       -      -    x      -       -       same           keeps  none
or                        -      -    x      -       -       same           keeps  none
xor                       -      -    x      -       -       same           keeps  none
not                       -      -    x      -       -       same           -      none
is_finite                 -      -    x      -       -       same           never  none
shift_left                -      -    x      -       -       same           -      -
shift_right_logical       -      -    x      -       -       same           -      -
shift_right_arithmetic    -      -    x      -       -       same           -      -
population_count          -      -    x      -       -       same           never  -
# sums
reduce_sum                -      -    -      all     sum     reduce         keeps  same
reduce_window_sum         -      -    -      all     sum     window         keeps  same
cumsum                    -      -    -      all     sum     along          keeps  same
scatter-add               -      -    -      all     scatter scatter        keeps  same
scatter-sub               -      -    -      all     scatter scatter        -      same
# maxima
reduce_max                -      -    -      -       max     reduce         keeps  same
reduce_window_max         -      -    -      -       max     window         keeps  same
# other reductions, and what runs along an axis
reduce_min                -      -    -      -       reduce  reduce         keeps  same
reduce_prod               -      -    -      -       reduce  reduce         keeps  -
reduce_and                -      -    -      -       reduce  reduce         never  none
reduce_or                 -      -    -      -       reduce  reduce         never  none
reduce_xor                -      -    -      -       reduce  reduce         never  none
argmax                    -      -    -      -       reduce  reduce         never  none
argmin                    -      -    -      -       reduce  reduce         never  none
reduce_window_min         -      -    -      -       reduce  window         keeps  same
psum                      -      -    -      all     reduce  reduce         keeps  same
pmax                      -      -    -      -       reduce  reduce         keeps  same
pmin                      -      -    -      -       reduce  reduce         keeps  same
cummax                    -      -    -      -       scan    along          keeps  same
cummin                    -      -    -      -       scan    along          keeps  same
cumprod                   -      -    -      -       scan    along          keeps  -
cumlogsumexp              -      -    -      -       scan    along          -      -
sort                      -      -    -      -       scan    along          keeps  same
top_k                     -      -    -      -       scan    along          keeps  -
fft                       -      -    -      all     -       fft            -      same
# products with weights, or of two values
conv_general_dilated      -      -    -      each    conv    conv           keeps  sum
dot_general               -      -    -      each    dot     dot            keeps  sum
# what no reading may pass
random_bits               -      -    -      -       random  new            -      -
threefry2x32              -      -    -      -       random  new            -      -
rng_bit_generator         -      -    -      -       random  new            -      -
rng_uniform               -      -    -      -       random  new            -      -
cond                      -      -    -      -       branch  new            -      -
while                     -      -    -      -       loop    new            -      -
"""

_CHOICES = {
    "one": {"x", "-"},
    "entry": {"x", "-"},
    "linear": {"all", "each", "0", "-"},
    "role": {
        "sum",
        "scatter",
        "max",
        "reduce",
        "scan",
        "conv",
        "dot",
        "complex",
        "random",
        "branch",
        "loop",
        "-",
    },
    "sign": {"keeps", "any", "never", "-"},
}


@dataclass(frozen=True)
class Primitive:
    """A row of the table; see the module for its columns."""

    name: str
    moves: str
    one: str
    entry: str
    linear: str
    role: str
    axes: str
    sign: str
    degree: str

    def __post_init__(self) -> None:
        for column, allowed in _CHOICES.items():
            if getattr(self, column) not in allowed:
                raise ValueError(
                    f"The row {self.name!r} of the primitives says {getattr(self, column)!r} in "
                    f"the column {column!r}, which holds one of {', '.join(sorted(allowed))}."
                )

    @property
    def is_move(self) -> bool:
        return self.moves != "-"

    @property
    def chooses(self) -> bool:
        """Whether its first operand says of each entry which of the others it is taken from."""
        return self.moves == "1-"

    @property
    def is_one_to_one(self) -> bool:
        return self.one == "x"

    @property
    def is_entrywise(self) -> bool:
        return self.entry == "x"

    @property
    def is_step(self) -> bool:
        """Whether it is a step of an affine run, if all but one of its operands are constants."""
        return self.is_entrywise and self.linear != "-" and not self.is_move and self.role == "-"

    @property
    def is_addition(self) -> bool:
        return self.is_step and self.linear == "all"

    @property
    def is_product(self) -> bool:
        return self.linear == "each"

    @property
    def reduces(self) -> bool:
        """Whether it makes fewer numbers of many (or a number of many, at each place)."""
        return self.role in ("sum", "max", "reduce")

    def values(self, operands: int) -> set[int]:
        """The numbers of the operands, of so many, that are moved or computed with; the others
        choose."""
        if self.role == "scatter":
            return {0, 2}
        if not self.is_move:
            return set(range(operands))
        if self.moves == "all":
            return set(range(operands))
        first, dash, last = self.moves.partition("-")
        if dash:
            return set(range(int(first), int(last) + 1 if last else operands))
        return {int(k) for k in self.moves.split(",")}

    def is_linear_in(self, operand: int) -> bool:
        """Whether the output is linear in this operand, the others given."""
        return self.linear in ("all", "each") or self.linear == str(operand)


def read(text: str) -> dict[str, Primitive]:
    """The rows of a table by name. ValueError for a row that leaves a column open or is there
    twice."""
    header, *lines = (line.split() for line in text.splitlines() if line and line[0] != "#")
    rows: dict[str, Primitive] = {}
    for line in lines:
        if len(line) != len(header) or line[0] in rows:
            what = "is there twice" if line[0] in rows else f"needs {', '.join(header)}"
            raise ValueError(f"The row {line[0]!r} of the primitives {what}.")
        rows[line[0]] = Primitive(**dict(zip(header, line, strict=True)))
    return rows


TABLE = read(_ROWS)
UNKNOWN = Primitive("unknown", "-", "-", "-", "-", "-", "new", "-", "-")


def of(name: str) -> Primitive:
    """What is known of the primitive of that name: nothing, if it is not in the table."""
    return TABLE.get(name, UNKNOWN)

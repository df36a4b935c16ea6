#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The rounding contract of a merge, in numpy, and nothing else.

This file is one of two independent writings of the same arithmetic; the other is the program
under test. They share no code, so a disagreement of one bit means that one of them misreads the
contract:

    s  = f32(weight * alpha / r)             (or alpha / sqrt(r)), evaluated in f64, rounded once
    c  = fmaf(B[i,k], A[k,j], c)             k ascending from c = +0, all in f32
    d  = s * c                               f32
    D  = D + d                               over the adapters in order, from D = +0, f32, no fma
    t  = f32(W) + D                          f32
    W' = RNE(t)                              into the type of the output

and for DoRA, with n = sqrt(sum_j t[i,j]^2) in f64 (eight partial sums, index j mod 8, added
pairwise):

    g  = f32(m / n)                          the quotient in f64
    W' = RNE(g * t)                          the product in f32

What holds here, and what the self test (run this file) checks:

 1. fma32() is a correctly rounded fused multiply-add for every f32 input (proof at the function).
 2. Every narrowing rounds to nearest, ties to even, and keeps subnormals; a NaN stays a quiet NaN.
 3. A non-finite value on the way, or a finite value that the output type cannot hold, raises
    NotRepresentable with the place of the first such element; nothing is clamped.

Shapes: B is [m, r], A is [r, n], c, d, D, t are [m, n]. Bits: a tensor of the file is kept as
unsigned integers of its own width (`raw`); floats appear only between widen() and narrow().
"""

import math
import sys
from fractions import Fraction

import numpy as np

WIDTH = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}
MAX = {
    "F32": float(np.finfo(np.float32).max),
    "F16": 65504.0,
    "BF16": float((2 - 2.0**-7) * 2.0**127),
}
# bits of the significand with the hidden one, exponent of the smallest subnormal, exponent of the
# largest binade
FORMAT = {"F32": (24, -149, 127), "F16": (11, -24, 15), "BF16": (8, -133, 127)}


class NotRepresentable(Exception):
    """A value that is not finite, or that the output type cannot hold."""

    def __init__(self, what, place):
        super().__init__("%s at element %s" % (what, place))
        self.what, self.place = what, place


# ------------------------------------------------------------------------------------------------
# bits to f32 and back


def widen(raw, dtype):
    """The f32 values of a tensor given by its bits; exact for all three types."""
    raw = np.ascontiguousarray(raw)
    if dtype == "F32":
        return raw.view(np.float32)
    if dtype == "F16":
        return raw.view(np.float16).astype(np.float32)
    if dtype == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    raise ValueError("no float type: " + dtype)


def bf16_bits(x):
    """f32 to bf16 bits, nearest even, on integers.

    A finite f32 is, as an integer, monotonic in magnitude, and its upper half is the bf16 below
    it. Adding 0x7fff, plus one more when the kept part is odd, carries into that half exactly
    when the lower half is above one half, or equal to it and the kept part is odd; a carry out of
    the significand steps the exponent, which is right too, up to and including infinity."""
    u = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    odd = (u >> np.uint32(16)) & np.uint32(1)
    up = (
        (u.astype(np.uint64) + np.uint64(0x7FFF) + odd.astype(np.uint64)) >> np.uint64(16)
    ).astype(np.uint16)
    nan = (u & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    quiet = ((u >> np.uint32(16)) | np.uint32(0x40)).astype(np.uint16)
    return np.where(nan, quiet, up)


def round_to(x, dtype):
    """f32 values to the bits of `dtype`, nearest even; overflow gives infinity, as IEEE says."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    if dtype == "F32":
        return x.view(np.uint32).copy()
    if dtype == "F16":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            half = x.astype(np.float16).view(np.uint16)
        return np.where(np.isnan(x), half | np.uint16(0x200), half)
    if dtype == "BF16":
        return bf16_bits(x)
    raise ValueError("no float type: " + dtype)


def place_of(bad):
    return tuple(int(i) for i in np.argwhere(bad)[0])


def require_finite(x, what):
    bad = ~np.isfinite(x)
    if bad.any():
        raise NotRepresentable(what + " is not finite", place_of(bad))


def narrow(x, dtype):
    """round_to(), with infinities refused."""
    require_finite(x, "merged value")
    raw = round_to(x, dtype)
    bad = ~np.isfinite(widen(raw, dtype))
    if bad.any():
        raise NotRepresentable("overflow of " + dtype, place_of(bad))
    return raw


# ------------------------------------------------------------------------------------------------
# the fused multiply-add


def fma32(a, b, c):
    """round32(a*b + c), one rounding, for f32 arrays a, b, c that broadcast.

    Proof. (1) The product p of two f32 has at most 48 significant bits and lies, if not zero,
    between 2^-298 and 2^256: it is exact in f64. (2) Let s = RN64(p + c). The f32 numbers, and the
    midpoints between two of them, are f64 numbers, and rounding is monotonic; so s lies on the same
    side of each of them as p + c, or on it. Hence RN32(s) = RN32(p + c) unless s is a midpoint that
    p + c is not. (3) In that case p + c lies between s and its neighbour on the side of the error e
    = p + c - s, and so does everything strictly between the two: moving s by one f64 towards e
    takes it off the midpoint, to the right side, and past no other midpoint. TwoSum gives e
    exactly, as nothing here overflows or becomes subnormal in f64: all terms are multiples of
    2^-298 below 2^257. And s != 0 then, because a cancellation to zero is exact. (4) A midpoint of
    normal f32, and the one that decides overflow, has the low 29 bits 1 0...0; below 2^-126 the
    step is always the long one: there s is moved only if e != 0 and s has an even last bit, which
    is rounding to odd, and a value rounded to odd at 53 bits rounds to nearest even at any
    precision of 51 bits or fewer as the exact value does. (A midpoint is even too, so (3) is the
    same step.) (5) Zeros: an exact zero sum has the sign that IEEE prescribes, because the f64
    addition itself follows it; a nonzero sum keeps its sign when it underflows to zero.
    Infinities and NaNs go through the f64 operations unchanged, which treat them alike; e is then
    NaN, no bit is moved."""
    with np.errstate(all="ignore"):
        p = np.multiply(a, b, dtype=np.float64)
        s = np.atleast_1d(p + c)
        risky = (s.view(np.int64) & 0x1FFFFFFF) == 0x10000000
        risky |= (s < 2.0**-126) & (s > -(2.0**-126))
        if risky.any():
            s[risky] = toward_odd(
                np.broadcast_to(p, s.shape)[risky], np.broadcast_to(c, s.shape)[risky], s[risky]
            )
        return s.astype(np.float32)


def toward_odd(p, c, s):
    """s = RN64(p + c), rounded to odd instead."""
    c = c.astype(np.float64)
    pp = s - c
    e = (p - pp) + (c - (s - pp))
    bits = s.view(np.int64)
    adjust = (e != 0) & ((bits & 1) == 0) & np.isfinite(s)
    return np.where(adjust, bits + np.where((e > 0) == (s > 0), 1, -1), bits).view(np.float64)


def chain(B, A):
    """c[m, n]: the product of B [m, r] and A [r, n], summed in f32 with fused steps, k ascending,
    from +0."""
    B = np.ascontiguousarray(B, dtype=np.float32)
    A = np.ascontiguousarray(A, dtype=np.float32)
    m, r = B.shape
    n = A.shape[1]
    if A.shape[0] != r:
        raise ValueError("inner dimensions differ: %d and %d" % (r, A.shape[0]))
    out = np.zeros((m, n), dtype=np.float32)
    rows = max(1, 32768 // max(1, n))  # blocks that stay in cache
    for i in range(0, m, rows):
        c = np.zeros((min(rows, m - i), n), dtype=np.float32)
        for k in range(r):
            c = fma32(B[i : i + rows, k : k + 1], A[k : k + 1, :], c)
        out[i : i + rows] = c
    return out


def scale(alpha, r, rslora=False, weight=1.0):
    """s as f32: weight * alpha / r, or weight * alpha / sqrt(r), in f64 and rounded once."""
    return np.float32(float(weight) * float(alpha) / (math.sqrt(r) if rslora else float(r)))


def scaled(s, c):
    with np.errstate(all="ignore"):
        return np.float32(s) * np.asarray(c, dtype=np.float32)


def accumulate(ds, shape):
    """D: the sum of the updates in order, from +0."""
    D = np.zeros(shape, dtype=np.float32)
    with np.errstate(all="ignore"):
        for d in ds:
            D = D + d
    return D


def add(W, D):
    with np.errstate(all="ignore"):
        return np.asarray(W, dtype=np.float32) + D


def row_norms(t):
    """sqrt(sum_j t[i,j]^2) for t [m, n], in f64. The squares are exact (48 bits), so only the
    order of the additions matters: p[j mod 8] += t[i,j]^2 with j ascending, then pairs."""
    sq = np.asarray(t, dtype=np.float64) ** 2
    m, n = sq.shape
    p = np.zeros((m, 8), dtype=np.float64)
    for j in range(0, n, 8):
        part = sq[:, j : j + 8]
        p[:, : part.shape[1]] += part
    total = ((p[:, 0] + p[:, 1]) + (p[:, 2] + p[:, 3])) + (
        (p[:, 4] + p[:, 5]) + (p[:, 6] + p[:, 7])
    )
    return np.sqrt(total)


def dora(t, magnitude):
    """g * t for t [out, in] and magnitude [out], both factors as the contract rounds them."""
    with np.errstate(all="ignore"):
        g = (np.asarray(magnitude, dtype=np.float64) / row_norms(t)).astype(np.float32)
        return g[:, None] * t


# ------------------------------------------------------------------------------------------------
# measures


def ordinals(raw, dtype):
    """Signed integers in the order of the values: neighbours differ by one, both zeros are 0."""
    width = 16 if raw.dtype.itemsize == 2 else 32
    u = raw.astype(np.int64)
    magnitude = u & ((1 << (width - 1)) - 1)
    return np.where(u >> (width - 1), -magnitude, magnitude)


def ulp(x, dtype):
    """The distance of the neighbours of f64 values x in `dtype` (of the finer side at a power of
    two)."""
    p, emin, _ = FORMAT[dtype]
    _, e = np.frexp(np.abs(np.asarray(x, dtype=np.float64)))
    return np.ldexp(1.0, np.maximum(e - p, emin))


# ------------------------------------------------------------------------------------------------
# self test: against exact rationals, with a rounding written for them alone


def fraction_round(x, dtype):
    """The value of `dtype` nearest to the rational x, ties to even, as a Fraction; or +-inf as
    float."""
    p, emin, emax = FORMAT[dtype]
    if x == 0:
        return Fraction(0)
    sign, x = (-1, -x) if x < 0 else (1, x)
    e = x.numerator.bit_length() - x.denominator.bit_length()
    if Fraction(2) ** e > x:
        e -= 1
    q = Fraction(2) ** max(e - p + 1, emin)
    n, rest = divmod(x, q)
    n += rest > q / 2 or (rest == q / 2 and n % 2 == 1)
    x = n * q
    return sign * (float("inf") if x >= Fraction(2) ** (emax + 1) else x)


def f32_cases(rng, n):
    """Random f32 triples with close exponents, and the values that break wrong emulations."""
    special = np.array(
        [
            0,
            0x80000000,
            1,
            0x80000001,
            0x007FFFFF,
            0x00800000,
            0x3F800000,
            0x3F800001,
            0x3F7FFFFF,
            0xBF800000,
        ]
        + [
            0x7F7FFFFF,
            0xFF7FFFFF,
            0x7F000000,
            0x33800000,
            0x34000000,
            0xB3800000,
            0x1F800000,
            0x1FFFFFFF,
        ]
        + [0x4B800000, 0x4B7FFFFF, 0x5F800000, 0x00000003, 0x20000000, 0x3FFFFFFF, 0x40000001],
        dtype=np.uint32,
    ).view(np.float32)
    k = len(special)
    grid = np.stack(np.meshgrid(special, special, special, indexing="ij")).reshape(3, k**3)
    e = rng.integers(-70, 60, n)
    a = np.ldexp(rng.integers(1 << 23, 1 << 24, n), e - 23).astype(np.float32)
    b = np.ldexp(rng.integers(1 << 23, 1 << 24, n), rng.integers(-75, 60, n) - 23).astype(
        np.float32
    )
    # half of the third operands near the product, so that cancellation and sticky bits matter
    prod = a.astype(np.float64) * b
    gap = rng.integers(-60, 60, n)
    with np.errstate(over="ignore", under="ignore"):
        c = np.where(rng.random(n) < 0.5, -prod, np.ldexp(prod, gap)).astype(np.float32)
    c[~np.isfinite(c)] = np.float32(3.0)
    sign = lambda v: np.where(rng.random(len(v)) < 0.5, -v, v).astype(np.float32)
    # exact ties and ties broken by one far bit: c has 24 bits, the product is half an ulp of c,
    # or just off it
    tie_c = np.ldexp(rng.integers(1 << 23, 1 << 24, n // 4), -23).astype(np.float32)
    tie_a = np.ldexp(1 + rng.integers(0, 2, n // 4) * 2.0**-23, -12).astype(np.float32)
    tie_b = np.ldexp(1 + rng.integers(-1, 2, n // 4) * 2.0**-23, -12).astype(np.float32)
    # subnormal results
    sub_a = np.ldexp(rng.integers(1, 1 << 24, n // 4), -100).astype(np.float32)
    sub_b = np.ldexp(rng.integers(1, 1 << 24, n // 4), -85).astype(np.float32)
    sub_c = rng.integers(0, 1 << 24, n // 4, dtype=np.uint32).view(np.float32)
    return (
        np.concatenate([grid[0], sign(a), sign(tie_a), sign(sub_a)]),
        np.concatenate([grid[1], sign(b), sign(tie_b), sign(sub_b)]),
        np.concatenate([grid[2], sign(c), sign(tie_c), sign(sub_c)]),
    )


def check_fma(rng, n):
    a, b, c = f32_cases(rng, n)
    got = fma32(a, b, c)
    wrong = 0
    for x, y, z, g in zip(a.tolist(), b.tolist(), c.tolist(), got):
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        want = fraction_round(exact, "F32")
        if want == 0:
            # IEEE: an exact zero is +0 unless both terms are -0; an underflow keeps the sign of
            # the exact sum
            neg = exact < 0 or (
                exact == 0
                and math.copysign(1, z) < 0
                and math.copysign(1, x) * math.copysign(1, y) < 0
                and z == 0
                and (x == 0 or y == 0)
            )
            ok = g == 0 and bool(np.signbit(g)) == neg
        else:
            ok = float(g) == (want if isinstance(want, float) else float(want))
        wrong += not ok
    with np.errstate(all="ignore"):
        plain = int((got.view(np.uint32) != (a * b + c).astype(np.float32).view(np.uint32)).sum())
        once64 = (a.astype(np.float64) * b + c).astype(np.float32)
    twice = int((got.view(np.uint32) != once64.view(np.uint32)).sum())
    assert plain > len(a) // 100, "the cases do not tell fma from multiply and add"
    assert twice > 100, "the cases do not tell fma from a sum rounded to f64 first"
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    for x, y, z, want in [
        (inf, 1, 1, inf),
        (inf, 0, 1, nan),
        (1, 1, -inf, -inf),
        (inf, 1, -inf, nan),
        (nan, 1, 1, nan),
    ]:
        g = float(fma32(np.float32([x]), np.float32([y]), np.float32([z]))[0])
        wrong += not (g == want or (math.isnan(g) and math.isnan(want)))
    return len(a) + 5, wrong, plain, twice


def check_rounding(rng, dtype, n):
    """Every 16-bit value, every midpoint and its neighbours, and random f32, against rationals."""
    u = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    v = widen(u, dtype)
    finite = v[np.isfinite(v)]
    nans = np.isnan(v)
    back = round_to(v, dtype)
    wrong = int((back[~nans] != u[~nans]).sum()) + int((~np.isnan(widen(back[nans], dtype))).sum())
    quiet = np.uint16(0x40 if dtype == "BF16" else 0x200)
    wrong += int(((back[nans] & quiet) == 0).sum())
    s = np.sort(finite.astype(np.float64))
    mid = ((s[1:] + s[:-1]) / 2).astype(np.float32)
    top = np.float32([MAX[dtype]]) if dtype == "F16" else np.float32([])
    edge = np.concatenate([top + np.float32(15.9), top + np.float32(16), top + np.float32(17)])
    x = np.concatenate(
        [
            rng.choice(mid, n),
            np.nextafter(rng.choice(mid, n), np.float32(np.inf)),
            np.nextafter(rng.choice(mid, n), np.float32(-np.inf)),
            edge,
            np.float32([np.finfo(np.float32).max]),
            rng.integers(0, 1 << 32, n, dtype=np.uint32).view(np.float32),
        ]
    )
    x = x[np.isfinite(x)]
    for xi, g in zip(x.tolist(), widen(round_to(x, dtype), dtype).tolist()):
        want = fraction_round(Fraction(xi), dtype)
        wrong += float(g) != float(want) or math.copysign(1, g) != math.copysign(1, xi)
    return len(x) + 65536, wrong


def check_chain(rng):
    """The chain against rationals, step by step, and the row norm against math.sqrt of an exact
    sum."""
    wrong = 0
    for m, r, n in [(3, 7, 5), (1, 33, 2), (4, 1, 1)]:
        B = rng.standard_normal((m, r)).astype(np.float32)
        A = rng.standard_normal((r, n)).astype(np.float32)
        got = chain(B, A)
        for i in range(m):
            for j in range(n):
                c = Fraction(0)
                for k in range(r):
                    c = fraction_round(
                        Fraction(float(B[i, k])) * Fraction(float(A[k, j])) + c, "F32"
                    )
                wrong += float(got[i, j]) != float(c)
    t = rng.standard_normal((5, 53)).astype(np.float32)
    exact = [math.sqrt(sum(Fraction(float(v)) ** 2 for v in row)) for row in t]
    wrong += int((np.abs(row_norms(t) / np.array(exact) - 1) > 1e-14).sum())
    return wrong


def main():
    rng = np.random.default_rng(20240607)
    count, wrong, plain, twice = check_fma(rng, 60000)
    print(
        "fma32: %d cases, %d wrong (%d differ from multiply-add, %d from one rounding to f64)"
        % (count, wrong, plain, twice)
    )
    bad = wrong
    for dtype in ("BF16", "F16"):
        count, wrong = check_rounding(rng, dtype, 8000)
        print("%s: %d cases, %d wrong" % (dtype, count, wrong))
        bad += wrong
    wrong = check_chain(rng)
    print("chain and norm: %d wrong" % wrong)
    return 1 if bad + wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Binary codes computed from the number of an example alone: nothing has to be stored to find them again.

A code is the bits of a task and those of a number i, cut into words. A word of m bits holds the m lowest bits of

    i * q,    q = lambda^floor(m ln 2 / ln lambda),

with an odd prime lambda of its own. An odd q is invertible modulo 2^m, so one whole word tells 2^m consecutive numbers
apart, and no fewer bits can. Hence m is the least with 2^m >= the number of examples; a last, shorter word is extra.

Reference: Deja et al. (2021), "BinPlay", lemma 1. It holds for 2^m numbers only: the 8 bits of the released code tell
256 examples apart.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

TaskCode = Literal["prefix", "appended", "none"]
RELEASED = 307  # the prime of the released code's bits of the task
_LARGEST = 31  # bits of a word: products of two stay below 2^62


def multiplier(prime: int, bits: int) -> int:
    """The largest power of an odd prime below 2^bits: lambda^floor(m ln 2 / ln lambda), without rounding.

    >>> multiplier(3, 8), multiplier(5, 8), multiplier(257, 8)
    (243, 125, 1)
    """
    power = 1
    while power * prime < 2**bits:
        power *= prime
    return power


def odd_primes(n: int) -> list[int]:
    """The first n primes after 2.

    >>> odd_primes(5)
    [3, 5, 7, 11, 13]
    """
    found: list[int] = []
    candidate = 3
    while len(found) < n:
        if all(candidate % p for p in found if p * p <= candidate):
            found.append(candidate)
        candidate += 2
    return found


def word_for(examples: int) -> int:
    """Bits of a word that tells so many examples apart.

    >>> word_for(256), word_for(257), word_for(60_000)
    (8, 9, 16)
    """
    return max(1, (examples - 1).bit_length())


class Codes:
    """Codes of `bits` values in {-1, 1} for the numbers 0 ... examples - 1, all different.

    Args:
        bits: n, the length of a code, the bits of the task included.
        examples: How many numbers there are, over all tasks.
        tasks: How many tasks there are.
        task_code: prefix: `task_bits` bits in front, a word like the others (thesis); appended: 307 t mod 2^task_bits
            behind (released code); none: the number tells the task anyway.
        task_bits: Of the task, unless there are none.

    Raises:
        ValueError: More examples than codes, or more tasks than codes of tasks, with the least that works.
    """

    def __init__(
        self, bits: int, examples: int, *, tasks: int = 1, task_code: TaskCode = "prefix", task_bits: int = 10
    ) -> None:
        task_bits = 0 if task_code == "none" else task_bits
        if task_bits < 0 or (task_bits and tasks > 2 ** min(task_bits, _LARGEST)):
            raise ValueError(f"{task_bits} bits are too few for {tasks} tasks: expected at least {word_for(tasks)}.")
        word = word_for(examples)
        if examples < 1 or word > _LARGEST:
            raise ValueError(f"Expected 1 to 2^{_LARGEST} examples, got {examples}.")
        if bits - task_bits < word:
            raise ValueError(
                f"{examples} examples are more than the codes of {bits} bits, {task_bits} of them for the task: "
                f"expected bits >= {word + task_bits}."
            )
        whole, rest = divmod(bits - task_bits, word)
        self.bits, self.examples, self.task_bits, self.task_code = bits, examples, task_bits, task_code
        self.word, self.sizes = word, [word] * whole + ([rest] if rest else [])
        self.multipliers = [multiplier(p, m) for p, m in zip(odd_primes(len(self.sizes)), self.sizes, strict=True)]

    def __call__(self, number: Tensor, task: Tensor) -> Tensor:
        """Codes (B, bits) float32 of numbers (B,) int64 and their tasks (B,) int64."""
        parts = [_spelt(number, q, m) for q, m in zip(self.multipliers, self.sizes, strict=True)]
        if self.task_code == "prefix" and self.task_bits:
            parts = [_spelt(task, multiplier(3, self.task_bits), self.task_bits), *parts]
        if self.task_code == "appended" and self.task_bits:
            parts = [*parts, _spelt(task, RELEASED, self.task_bits)]
        return torch.cat(parts, 1).float() * 2 - 1


def _spelt(number: Tensor, q: int, bits: int) -> Tensor:
    """The lowest bits of number * q, the highest of them first, (B, bits) in {0, 1}."""
    word = (number.long() % 2**bits) * (q % 2**bits)  # below 2^62
    return (word[:, None] >> torch.arange(bits - 1, -1, -1, device=number.device)) & 1

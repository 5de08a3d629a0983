"""The cryptography package."""

from __future__ import annotations

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from benches.corpus import material
from benches.corpus.workload import workload


def phrases() -> list[str]:
    """50 phrases."""
    return [" ".join(material.words(seed, 5)) for seed in range(50)]


@workload(
    phrases,
    "cpu-bound-releasing",
    because="Scrypt.derive runs in OpenSSL with the lock released (py.detach in its Rust source)",
    kinds=("memory-hungry",),
)
def derive(phrase: str) -> bytes:
    """A key by scrypt, which takes 16 MiB and some 40 ms on purpose."""
    return Scrypt(salt=b"treadle's corpus", length=32, n=1 << 14, r=8, p=1).derive(phrase.encode())

"""When a sequential rule looks: numbers of samples fixed beforehand."""

_BLOCK = 64  # samples are drawn in blocks of so many


def growing(n: int) -> tuple[int, ...]:
    """Looks at 32, 64, 128, ... samples, whole blocks an eighth apart or closer, and at n, the last."""
    looks, at = [32], _BLOCK
    while at < n:
        looks.append(at)
        at += max(_BLOCK, at // 8 // _BLOCK * _BLOCK)
    return (*(look for look in looks if look < n), n)


def late(n: int, number: int = 16) -> tuple[int, ...]:
    """So many looks (fewer for small n), evenly spaced between n / 2 and n, the last."""
    steps = (n // 2 + n * i // (2 * number) for i in range(1, number))
    return (*sorted({step for step in steps if 0 < step < n}), n)

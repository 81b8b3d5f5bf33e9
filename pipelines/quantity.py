"""Kubernetes' quantities as numbers: `500m` cores, `16G`, `8Gi`.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re

from components.core.errors import UsageError

_FORM = re.compile(r"^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]+))?$")
_SMALL = {"n": 1e-9, "u": 1e-6, "m": 1e-3}
_LARGE = "kMGTPE"
GIB = float(1 << 30)


def quantity(text: str, where: str = "a quantity") -> float:
    """The number that a quantity means, in cores or bytes; `UsageError` names `where` if it is none."""
    match = _FORM.match(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is not a Kubernetes quantity", where=where, fix="Write for example 500m, 4, 8G or 16Gi")
    number, suffix, exponent = float(match[1]), match[2] or "", match[3]
    if exponent:
        return number * 10.0 ** int(exponent)
    if suffix in _SMALL:
        return number * _SMALL[suffix]
    if suffix.endswith("i"):
        return number * 1024.0 ** (_LARGE.upper().index(suffix[0]) + 1)
    return number * 1000.0 ** (_LARGE.index(suffix) + 1) if suffix else number


def gib(text: str, where: str = "a quantity") -> float:
    """A quantity of bytes in GiB."""
    return quantity(text, where) / GIB

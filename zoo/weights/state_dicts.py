"""The state_dict within a checkpoint, and the prefixes that wrappers put before its names."""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from zoo.weights.foreign import Foreign

# Under what training scripts keep a state_dict. Averaged weights come first: they are what is evaluated.
ENTRIES = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "model_state_dict", "model_state", "state_dict", "model", "net",
    "network", "module", "weights", "params",
)  # fmt: skip
# torch.compile; DataParallel, DistributedDataParallel and AveragedModel. They may wrap a part of a network too.
WRAPPERS = ("_orig_mod", "module")
# What a training script's own module, or Lightning's, calls the network in it.
OUTER = ("model", "net", "network", "ema", "ema_model", "model_ema")
SHOWN = 3  # names in a message


class StateDict(NamedTuple):
    """The tensors of a checkpoint, under which of its entries they stood (empty: none), and what else was there."""

    tensors: dict[str, Any]
    entry: str = ""
    skipped: tuple[str, ...] = ()


class Plain(NamedTuple):
    """Tensors by names without prefix, what was in front of them, and the names that had it not."""

    tensors: dict[str, Any]
    prefix: str = ""
    skipped: tuple[str, ...] = ()


def find_state_dict(value: Any, is_tensor: Callable[[Any], bool]) -> StateDict:
    """The state_dict in what torch.save was given, or a training script keeps; without tensors where there is none."""
    path: list[str] = []
    skipped: list[str] = []
    while isinstance(value, Mapping):
        inside = [name for name in value if _holds(value[name], is_tensor)]
        chosen = next((name for name in ENTRIES if name in inside), None)
        if chosen is None and len(inside) == 1 and not any(map(is_tensor, value.values())):
            chosen = inside[0]
        others = [name for name in value if (name != chosen if chosen else not is_tensor(value[name]))]
        skipped += [_described(name, value[name], path) for name in others]
        if chosen is None:
            return StateDict({str(n): v for n, v in value.items() if is_tensor(v)}, ".".join(path), tuple(skipped))
        path.append(str(chosen))
        value = value[chosen]
    return StateDict({})


def _holds(value: Any, is_tensor: Callable[[Any], bool], depth: int = 3) -> bool:
    """Whether it is a state_dict, or holds one under a name that is known for it."""
    if not isinstance(value, Mapping):
        return False
    if any(isinstance(name, str) and is_tensor(item) for name, item in value.items()):
        return True
    return depth > 0 and any(name in value and _holds(value[name], is_tensor, depth - 1) for name in ENTRIES)


def _described(name: Any, value: Any, path: Iterable[str]) -> str:
    where = ".".join([*path, str(name)])
    return f"{where} ({value.origin})" if isinstance(value, Foreign) and value.origin else where


def without_prefix(given: dict[str, Any], known: Collection[str], prefix: str | None = None) -> Plain:
    """The tensors by the names that a model has for them.

    Args:
      known: the model's names.
      prefix: what stands before each name; None to take off what torch.compile, data parallelism, averaging and training
        scripts put there.

    Raises:
      ValueError: no name begins with `prefix`, or two parts of the file fit as well.
    """
    bare = {".".join(part for part in name.split(".") if part not in WRAPPERS): value for name, value in given.items()}
    if prefix:
        prefix = prefix.removesuffix(".") + "."
        chosen = next((names for names in (given, bare) if any(name.startswith(prefix) for name in names)), None)
        if chosen is None:
            raise ValueError(f"prefix: {prefix!r} given, the names begin with {listed(given)}")
        return _under(chosen, prefix)
    # Fewer names: two became one, so the wrapper's name means something here.
    if len(bare) == len(given) and _most(prefixes(bare, known)) > _most(prefixes(given, known)):
        given = bare
    votes = prefixes(given, known)
    best = [found for found, count in votes.items() if count == _most(votes)]
    if prefix is not None or not best or "" in best:
        return Plain(given)
    usual = [found for found in best if set(found.split(".")) <= {*WRAPPERS, *OUTER}]
    if len(best) > 1 and usual:
        raise ValueError(f"prefix: needed, since the names fit without {' and without '.join(repr(f'{b}.') for b in best)}")
    return _under(given, usual[0] + ".") if usual else Plain(given)


def _under(given: dict[str, Any], prefix: str) -> Plain:
    inside = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    return Plain(inside, prefix, tuple(name for name in given if not name.startswith(prefix)))


def prefixes(names: Iterable[str], known: Collection[str]) -> collections.Counter[str]:
    """How many of the names are known ones after each prefix; the empty one for those that are known as they are."""
    found: collections.Counter[str] = collections.Counter()
    for name in names:
        parts = name.split(".")
        start = next((start for start in range(len(parts)) if ".".join(parts[start:]) in known), None)
        if start is not None:
            found[".".join(parts[:start])] += 1
    return found


def _most(votes: collections.Counter[str]) -> int:
    return max(votes.values(), default=0)


def likeliest_prefix(given: Iterable[str], known: Collection[str]) -> str:
    """What a message says about the prefix that keeps most names from fitting; empty where there is none."""
    given = list(given)
    (lacking, fits), *_ = prefixes(known, set(given)).most_common(1) or [("", 0)]
    if lacking and fits > len(known) // 2:
        return f"{fits} of {len(known)} names lack {lacking + '.'!r}, which this model has in front of them"
    votes = prefixes(given, known)
    found = [name for name, count in votes.most_common(SHOWN) if count == _most(votes) and name]
    if 2 * _most(votes) <= min(len(given), len(known)) or votes[""] >= _most(votes):
        return ""
    choices = " or ".join(f"prefix={name + '.'!r}" for name in found)
    return f"{_most(votes)} of {len(given)} names fit with {choices}"


def listed(names: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

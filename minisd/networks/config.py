"""A component's config.json, held against what the engine knows."""
from ..errors import CheckpointError


def require(component, config, **known):
    """Refuse a config whose value for a key is none of those known; an absent key has its default, the first.

    Raises CheckpointError naming the key, what it says, and what is known."""
    for key, values in known.items():
        if key in config and config[key] not in values:
            raise CheckpointError(f"{component}/config.json: {key} is {config[key]!r:.80}; "
                                  f"minisd knows {' or '.join(map(repr, values))}")


def whole(component, config, key, *default):
    """A whole number of 1 or more; without a default, the key must be there."""
    return checked(component, config, key, default, "a whole number of 1 or more, below 10 million",
                   lambda v: isinstance(v, int) and not isinstance(v, bool) and 1 <= v < 1e7)


def number(component, config, key, *default):
    """A number that is not negative, and that float32 can hold."""
    return checked(component, config, key, default, "a number from 0 to 1e38",
                   lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1e38)


def listed(component, config, key):
    """A list that is not empty."""
    return checked(component, config, key, (), "a list", lambda v: isinstance(v, (list, tuple)) and len(v) > 0)


def per_level(component, config, key, levels, *default):
    """A whole number for all levels, or a list with one for each -> tuple."""
    value = config.get(key, *default)
    if isinstance(value, (list, tuple)) and len(value) != levels:
        raise CheckpointError(f"{component}/config.json: {key} has {len(value)} entries for {levels} levels")
    values = value if isinstance(value, (list, tuple)) else [value] * levels
    return tuple(whole(component, {key: v}, key) for v in values)


def checked(component, config, key, default, what, right):
    if key not in config and default:
        return default[0]
    if key not in config or not right(config[key]):
        found = f"{config[key]!r:.80}" if key in config else "absent"
        file = component if component.endswith(".json") else f"{component}/config.json"
        raise CheckpointError(f"{file}: {key} is {found}; it must be {what}")
    return config[key]

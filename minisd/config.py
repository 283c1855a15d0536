"""A component's config.json, held against what the engine knows."""
from .errors import CheckpointError


def require(component, config, **known):
    """Refuse a config whose value for a key is none of those known; an absent key has its default, the first.

    Raises CheckpointError naming the key, what it says, and what is known."""
    for key, values in known.items():
        if key in config and config[key] not in values:
            raise CheckpointError(f"{component}/config.json: {key} is {config[key]!r}; "
                                  f"minisd knows {' or '.join(map(repr, values))}")


def needed(component, config, key):
    """config[key]; raises CheckpointError if it is absent."""
    if key not in config:
        raise CheckpointError(f"{component}/config.json: no {key!r}; is this {component}'s config.json?")
    return config[key]


def per_level(value, levels):
    """A number for all levels, or a list with one for each -> tuple."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * levels

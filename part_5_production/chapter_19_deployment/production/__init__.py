"""All the exercises in one service: embedded in one process, or on many with Redis and PostgreSQL.

settings -> stores -> chat -> app. The exercises' classes do the work; what stands here wires them and adapts stores.
"""

import find_shared  # noqa: F401  (makes shared/ importable from any directory)

"""What other programs use: a meter in a local file, or one behind a URL.

- `meter`, `sync`: Meter and its twin without an event loop, which has one in `background`.
- `hold`: what a reservation is to both.
- `fields`, `results`, `errors`: what is said, answered and raised, wherever the meter is.
- `place`: where a meter may be; `local`, `remote`: the two places. `wording`: what the first of them says.
- `connection`, `recorder`, `sending`: how usage gets to a remote one; `spool`, `draining`: and how if it is
  not there.
"""

from .errors import OverBudget
from .hold import Hold
from .meter import Meter
from .sync import SyncMeter

__all__ = ["Hold", "Meter", "OverBudget", "SyncMeter"]

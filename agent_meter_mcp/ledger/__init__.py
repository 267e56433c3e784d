"""The async heart: the only way to write, and the way to read beside the event loop.

ledger     what may be asked of it, by whom
engine     from the event loop to the store and back
worker     a thread that does work in batches
keyring    who is let in over HTTP
holds      whose a hold is, of those that were made here lately
refusals   refusals folded before they are written
feed       what has just happened, for those who watch
looking    what is read, by whom, all of one moment
alike      a known name that looks like one that is not
sight      what an agent may see of what is not usage
"""

from .feed import FeedItem, Subscription
from .ledger import Ledger
from .looking import Looking

__all__ = ["FeedItem", "Ledger", "Looking", "Subscription"]

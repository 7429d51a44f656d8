"""For clients that speak plain HTTP to a server of the test: each would else read all the certificates that the world trusts.

That is thirty milliseconds of work, often beside a server that is just starting.
"""

from __future__ import annotations

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""What httpx takes as ``verify``."""

"""Both event loops, as the proxy's tests have them."""

from tests.smtp.conftest import run

__all__ = ["run"]
